"""Serves the dashboards of one run for `tuner dashboard`, on this machine's loopback only.

Neither asks for a password, so neither may listen on an address that others reach. The Optuna dashboard can write into
a study; here it cannot, because the search's driver is the journal's only writer. Errors of a request are not printed:
the browser shows them, and the terminal shows the addresses.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tuner.contract import InputError
from tuner.results.folder import RunFolder

LOOPBACK = "127.0.0.1"
"""The address that the dashboards listen on."""
_READ_ONLY = "this view of the study is read-only: the search's driver is the one that writes it"


@contextmanager
def optuna_board(folder: RunFolder) -> Iterator[str]:
    """Serves the Optuna dashboard on the run's study; yields its address."""
    import optuna
    import optuna_dashboard
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class ReadOnly(JournalFileBackend):
        def append_logs(self, logs: Any) -> None:
            raise InputError(_READ_ONLY)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    app = _refusing(optuna_dashboard.wsgi(JournalStorage(ReadOnly(str(folder.study)))))
    with make_server(LOOPBACK, 0, app, server_class=_Server, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/dashboard"
        finally:
            server.shutdown()
            thread.join()


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


def _refusing(app: Any) -> Any:
    """The application, without requests that could change the study: they are answered with 403."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": _READ_ONLY}).encode()]

    return answer


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
