"""Starts Ray on this machine or joins a cluster, and ends what it started."""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partialmethod
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO, Any

from tuner.addresses import joins
from tuner.contract import InputError
from tuner.error_text import first_line
from tuner.ray_cluster.home import Home, parent
from tuner.ray_cluster.joining import require_cluster, wants_token
from tuner.ray_cluster.token import guard_token
from tuner.redaction import LogFile, RedactedStream
from tuner.signals import reclaim
from tuner.streams import tell_log

# Ray reads these when its modules are imported, or when a search starts
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # they import torch on the driver (3.3 s); the ledger is our log
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals.py handles them; Ray's handler would end the search with exit code 0
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # rarely: nobody reads these snapshots, and a resume reads the ledger
    "TUNE_MAX_LEN_IDENTIFIER": "40",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ends the children of a trial's program with its worker, however that ends. Ray's other way makes a subreaper of
    # every process, this one too: it ignores SIGCHLD, and all subprocesses seem to end with code 0
    "RAY_process_group_cleanup_enabled": "true",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; without it Ray warns at every start
    "TOKENIZERS_PARALLELISM": "false",
}
LEAST_FILES = 96
"""File descriptors that a driver needs to start Ray. Measured: Ray's start fails with 48, and a search runs with 96."""
_GRPC_PROXY = "RAY_grpc_enable_http_proxy"
"""The variable that tells whether Ray's own calls go through http_proxy."""


@contextmanager
def ray_session(
    address: str | None, log: Path, metadata: Mapping[str, str] | None = None
) -> Iterator[Mapping[str, float]]:
    """Joins the cluster at `address` (or RAY_ADDRESS), or starts Ray on this machine; yields the cluster's resources.

    A Ray that was running in this process before is used, and not ended. Ray's own output goes to `log`.
    metadata: what the job is about, for the dashboard and the jobs API. Raises InputError where the address does not
    answer.
    """
    ray = import_ray(address)
    with _output_to(log):
        yield from _joined(ray, joins(address), metadata or {})


def import_ray(address: str | None) -> Any:
    """Sets Ray's environment variables, checks a cluster that is to be joined, and imports Ray (2 s). Raises
    InputError."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    joined = joins(address)
    if joined is None:
        os.environ[_GRPC_PROXY] = "0"  # its processes are all on this machine, which no proxy reaches
    elif not _is_initialized():
        require_cluster(joined)
    import ray

    return ray


def _is_initialized() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _joined(ray: Any, joined: str | None, metadata: Mapping[str, str]) -> Iterator[Mapping[str, float]]:
    drop_handlers()
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    if joined:
        joined = require_cluster(joined)
    else:
        guard_token()
    home = None if joined else _home()
    try:
        _init(ray, joined, home, metadata)
        yield ray.cluster_resources()
    finally:
        _shutdown(ray, home)


def _home() -> Home:
    _require_files()
    try:
        return Home()
    except OSError as error:
        raise _not_started(None, error) from error


def _require_files() -> None:
    """Raises the soft limit of open files where it is too low. Raises InputError where the hard limit is too: Ray's C++
    side would end the process somewhere in its start, with an exit code of its own and no message for the user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= LEAST_FILES or soft == resource.RLIM_INFINITY:
        return
    if hard >= LEAST_FILES or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_FILES, hard))
        return
    raise InputError(
        f"Ray does not start on this machine (a process may open {soft} files here)",
        expected=f"at least {LEAST_FILES}",
        remedy="ulimit -n 4096",
    )


def _init(ray: Any, joined: str | None, home: Home | None, metadata: Mapping[str, str]) -> None:
    """Calls `ray.init`. Raises InputError for whatever keeps Ray from starting: Ray raises plain `Exception` where a
    node does not answer in time, OSErrors where no process or port is free, and others."""
    local = {"dashboard_host": "127.0.0.1", "_temp_dir": str(home.ray)} if home else {}
    try:
        with _patched_init(ray, home):
            ray.init(
                address=joined or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                job_config=_job_config(ray, metadata),
                **local,
            )
    except Exception as error:
        raise _not_started(joined, error) from error


def _job_config(ray: Any, metadata: Mapping[str, str]) -> Any:
    """What Ray tells its workers about this search. Ray puts the current folder and the script's first in their
    sys.path, where a user's `datasets.py` would be imported in place of the library: here it adds none, and a program's
    folders come last (worker/config.py). A checkout that is not installed is added, because workers import it."""

    class JobConfig(ray.job_config.JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True  # which is when Ray adds no folder

    try:
        distribution("tuner")
        ours = []
    except PackageNotFoundError:
        ours = [str(Path(__file__).parents[2])]
    return JobConfig(metadata=dict(metadata), _py_driver_sys_path=ours)


def _shutdown(ray: Any, home: Home | None) -> None:
    """Ends Ray, and keeps this process's own handler for SIGTERM. Ray's C++ side restores the default handler when it
    stops, and its processes take a moment longer: a second SIGTERM would end the driver before its last output.

    Processes of `home` are killed at once: every report is on disk, and Ray would wait a second for each process.
    """
    node = ray._private.worker._global_node
    if node is not None and home is not None:
        stop = node.kill_all_processes

        def heard(*arguments: Any, **more: Any) -> None:
            reclaim()
            home.clear()
            stop(*arguments, **more)  # finds them dead, and only notes that

        node.kill_all_processes = heard
    try:
        ray.shutdown()
    except Exception:  # Ray ends with this process in any case, and the error must not hide what ended the search
        logging.getLogger(__name__).exception("Ray did not end in order")
    finally:
        reclaim()
        if home is not None:
            home.clear()


@contextmanager
def _patched_init(ray: Any, home: Home | None) -> Iterator[None]:
    """Patches Ray while `ray.init` runs, for what it has no arguments for: processes that start in `home`; no handler
    for SIGTERM; and any free port for the node's agent, which otherwise listens at 52365: with two Rays on one machine
    the second one finds the port taken, and its dashboard shows no logs."""
    params, utils = ray._private.parameter.RayParams, ray._private.utils
    before, answers = params.__init__, utils.set_sigterm_handler
    session = {"session_name": home.session} if home else {}
    params.__init__ = partialmethod(before, dashboard_agent_listen_port=0, **session)
    utils.set_sigterm_handler = lambda handler: None
    try:
        with home.starting(ray._private.services) if home else nullcontext():
            yield
    finally:
        params.__init__, utils.set_sigterm_handler = before, answers


def dashboard_url() -> str | None:
    """The URL of this session's Ray dashboard; None where none runs."""
    import ray

    context = getattr(ray, "_private", None)
    url = context.worker.get_dashboard_url() if context else None
    return f"http://{url}" if url else None


def dashboard_page() -> str | None:
    """The URL of this search's page in the Ray dashboard; None where no dashboard runs."""
    import ray

    url = dashboard_url()
    return f"{url}/#/jobs/{ray.get_runtime_context().get_job_id()}" if url else None


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Writes what libraries print, log and warn into a file, and nothing of it to the terminal.

    Ray prints the deaths of workers to standard output, where `--json` prints its one object. It removes its own log
    handlers at `ray.init`, after which Python's handler of last resort would print every warning. And where a library's
    own thread dies (TensorBoard's writer on a full disk), Python would print its traceback.
    """
    handler = LogFile(log)
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    before, threading.excepthook = threading.excepthook, _log_dead_thread
    tell_log()
    try:
        with _opened(log) as file:
            output = RedactedStream(file)
            with redirect_stdout(output):  # type: ignore[type-var]
                yield
            output.flush()
    finally:
        threading.excepthook = before
        root.removeHandler(handler)
        handler.close()


def _opened(log: Path) -> IO[bytes]:
    """Opens the log for appending; /dev/null where that fails, because a log must not end a search."""
    try:
        return log.open("ab", buffering=0)
    except OSError:
        return Path(os.devnull).open("ab", buffering=0)


def _log_dead_thread(dead: threading.ExceptHookArgs) -> None:
    name = dead.thread.name if dead.thread else "?"
    told = (dead.exc_type, dead.exc_value or dead.exc_type(), dead.exc_traceback)
    logging.getLogger(__name__).error("the thread %s died", name, exc_info=told)


def drop_handlers() -> None:
    """Removes the log handlers that Ray's modules set when they were imported; the session's own stays."""
    for name in [name for name in logging.root.manager.loggerDict if name == "ray" or name.startswith("ray.")]:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True


def _not_started(joined: str | None, error: Exception) -> InputError:
    if joined and "token" in str(error).lower():
        return wants_token(joined, first_line(error))
    if joined:
        return InputError(
            f"no Ray cluster answers at {joined} ({first_line(error)})",
            where="run.address",
            expected="the address of a running cluster, such as 10.0.0.1:6379, or nothing for this machine",
            remedy="start one with: ray start --head; if it asks for a token, put that into RAY_AUTH_TOKEN",
        )
    why, remedy = first_line(error), "start it again; where the machine is busy, when it is less so"
    if isinstance(error, BlockingIOError | MemoryError) or "start new thread" in str(error):
        remedy = "raise the limit of processes (ulimit -u), or end others of yours: Ray takes about 300 threads"
    return InputError(
        f"Ray does not start on this machine ({why})",
        expected="room for its processes and threads (ulimit -u), free ports, /dev/shm, and a temporary folder "
        f"({parent()})",
        remedy=f"{remedy}; RAY_TMPDIR names another temporary folder",
    )
