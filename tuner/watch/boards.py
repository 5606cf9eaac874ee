"""The dashboards that `tuner dashboard` serves for one run, on this machine's loopback alone.

Neither asks for a password, so neither may listen on an address that others reach. The Optuna dashboard can write; here
it cannot, because the search's driver is the journal's only writer.
"""

from __future__ import annotations

import contextlib
import importlib.util
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


@contextmanager
def optuna_board(folder: RunFolder) -> Iterator[str]:
    """Serves the Optuna dashboard on the run's study; yields its address."""
    import optuna
    import optuna_dashboard
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    class ReadOnly(JournalFileBackend):
        def append_logs(self, logs: Any) -> None:
            raise InputError("this view of the study is read-only: its driver is the one that writes it")

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    app = optuna_dashboard.wsgi(JournalStorage(ReadOnly(str(folder.study))))
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
    from tensorboard import program

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(folder.tensorboard), "--host", LOOPBACK, "--port", "0"])
    with _quiet():
        url = board.launch()
    yield url.rstrip("/")


BOARDS: dict[str, tuple[Callable[[RunFolder], Any], str, str, Callable[[RunFolder], Path]]] = {
    "optuna": (optuna_board, "optuna_dashboard", "optuna-dashboard", lambda folder: folder.study),
    "tensorboard": (tensorboard, "tensorboard", "tensorboard", lambda folder: folder.tensorboard),
}
"""By name: what serves it, the module it needs, the package that has the module, and what of the run it shows."""


def why_not(name: str, folder: RunFolder) -> str:
    """Why a board cannot be served, with what to do; "" where it can."""
    _, module, package, shows = BOARDS[name]
    if importlib.util.find_spec(module) is None:
        return f"not installed; python -m pip install {package}"
    if not shows(folder).exists():
        return f"the run has no {shows(folder).name}"
    return ""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """A line a request would hide the addresses that were printed."""


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorBoard warns of a TensorFlow that is not there, on standard error."""
    import io

    with contextlib.redirect_stderr(io.StringIO()):
        yield
