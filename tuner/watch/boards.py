"""Serves the dashboards of one run for `tuner dashboard`, on this machine's loopback only.

Neither asks for a password, so neither may listen on an address that others reach. The Optuna dashboard can write into
a study; here it cannot, because the search's driver is the journal's only writer. Errors of a request are not printed:
the browser shows them, and the terminal shows the addresses.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import io
import json
import logging
import secrets
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tuner.results.folder import RunFolder

LOOPBACK = "127.0.0.1"
"""The address that the dashboards listen on."""
_BANNER = (
    '<div id="read-only" style="position: fixed; bottom: 0; left: 50%; transform: translateX(-50%); z-index: 2000; '
    "padding: 2px 12px; font: 13px sans-serif; color: #fff; background: #555; border-radius: 4px 4px 0 0; "
    'pointer-events: none">{}</div>'
)
"""What every page has at its foot."""


@contextmanager
def optuna_board(folder: RunFolder) -> Iterator[str]:
    """Serves the Optuna dashboard on the run's study; yields its address."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna_dashboard").addHandler(logging.NullHandler())  # else Python prints what it logs
    logging.getLogger("optuna_dashboard").propagate = False
    app = _refusing(_Anew(folder))
    with _serving(app) as port:
        yield f"http://{LOOPBACK}:{port}/dashboard"


@contextmanager
def tensorboard(folder: RunFolder) -> Iterator[str]:
    """Serves TensorBoard on the run's event files, in a thread that ends with the process; yields its address."""
    from tensorboard import default, program
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

    for name in ("tensorboard", "werkzeug"):  # werkzeug, its server, adds a handler of its own if there is none
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    plugins = default.get_plugins()
    plugins.sort(key=lambda plugin: plugin is not CustomScalarsPlugin)  # the first one with data is the first page
    board = program.TensorBoard(plugins)
    board.configure(argv=["tensorboard", "--logdir", str(folder.tensorboard), "--host", LOOPBACK, "--port", "0"])
    with _quiet():
        url = board.launch()
    yield url.rstrip("/")


@contextmanager
def signed_in(page: str, token: str | None) -> Iterator[str]:
    """Serves an address that opens a page of the Ray dashboard with the token filled in; yields it.

    The dashboard takes its token from a cookie, and a browser sends the cookies of a host to all of its ports. So where
    the dashboard answers on the loopback, as it does for a search on this machine or through a tunnel, a server there
    sets the cookie and sends the browser on. Its path is a secret: other users of this machine reach the loopback too.
    For any other host, and without a token, yields the page itself.
    """
    host = urlsplit(page).hostname
    if not token or host not in (LOOPBACK, "localhost"):
        yield page
        return
    path = f"/{secrets.token_urlsafe(16)}"
    cookie = f"ray-authentication-token={token}; Path=/; HttpOnly; SameSite=Strict"

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if not secrets.compare_digest(environ["PATH_INFO"].encode("utf-8", "replace"), path.encode()):
            start("404 Not Found", [])
            return []
        start("302 Found", [("Location", page), ("Set-Cookie", cookie), ("Cache-Control", "no-store")])
        return []

    with _serving(answer) as port:
        yield f"http://{host}:{port}{path}"


@contextmanager
def _serving(app: Any) -> Iterator[int]:
    """Serves an application on a free port of the loopback, and yields that."""
    with make_server(LOOPBACK, 0, app, server_class=_Server, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


BOARDS: dict[str, tuple[Callable[[RunFolder], Any], str, str, Callable[[RunFolder], Path]]] = {
    "optuna": (optuna_board, "optuna_dashboard", "optuna-dashboard", lambda folder: folder.study),
    "tensorboard": (tensorboard, "tensorboard", "tensorboard", lambda folder: folder.tensorboard),
}
"""By name: the function that serves it, the module that it needs, the package that has the module, and the file or
folder of the run that it shows."""


def why_not(name: str, folder: RunFolder) -> str:
    """Why a dashboard cannot be served, and what to do; "" if it can."""
    _, module, package, shows = BOARDS[name]
    if importlib.util.find_spec(module) is None:
        return f"not installed; python -m pip install {package}"
    if not shows(folder).exists():
        return f"the run has no {shows(folder).name}"
    return ""


class _Anew:
    """The dashboard's application; made anew where a resume has replaced the journal, of which one reads only what was
    appended."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._making = threading.Lock()
        self._made: tuple[int, Any] = (-1, None)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        return self._app()(environ, start)

    def _app(self) -> Any:
        import optuna_dashboard

        from tuner.watch.study_page import Files, Page

        with self._making:
            journal = self._folder.study.stat().st_ino
            if journal != self._made[0]:
                files = Files(self._folder)
                self._made = journal, optuna_dashboard.wsgi(Page(self._folder, files), artifact_store=files)
            return self._made[1]


def _refusing(app: Callable[..., Any]) -> Callable[..., Any]:
    """The application, without requests that could change the study: they are answered with 403. Its pages say so."""
    from tuner.watch.study_page import READ_ONLY

    banner = _BANNER.format(html.escape(READ_ONLY)).encode()

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS"):
            start("403 Forbidden", [("Content-Type", "application/json")])
            return [json.dumps({"reason": READ_ONLY}).encode()]
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].startswith("/dashboard"):
            return _with(banner, app, environ, start)
        return app(environ, start)

    return answer


def _with(banner: bytes, app: Callable[..., Any], environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    """The page that the application answers with, and the banner in it."""
    begun: list[Any] = []
    whole = {name: value for name, value in environ.items() if name not in ("HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE")}
    parts = app(whole, lambda *given, **more: begun.extend(given))
    try:
        page = b"".join(parts).replace(b"</body>", banner + b"</body>")
    finally:
        if hasattr(parts, "close"):
            parts.close()
    status, headers = begun[:2]
    kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "last-modified", "etag")]
    start(status, [*kept, ("Content-Length", str(len(page)))])
    return [page]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints nothing, as when a browser closes its window in the middle of an answer."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Prints nothing: a line a request would hide the addresses."""

    def get_stderr(self) -> Any:
        """The stream for the traceback of a request that failed; it is dropped."""
        return io.StringIO()


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops what is written to standard error: TensorBoard warns there that TensorFlow is missing."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
