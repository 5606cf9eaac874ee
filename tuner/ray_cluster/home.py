"""Keeps a Ray that a search starts apart: its files in a folder of the user's alone, its processes in own sessions.

The folder holds Ray's sockets and logs and the temporary files of its processes. Ray makes its own folder readable and
writable by everybody, so it lies inside one that is not. Each process that Ray starts leads an operating-system session
of its own, because a signal to the driver's process group (`timeout`, a shell that closes, Slurm) is not for Ray: the
driver needs it to save what runs. `reaper.py` kills the processes and removes the folder when the driver has gone;
after a crash of the machine the next search removes the folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.ray_cluster import reaper

PREFIX = "tuner-ray-"
"""The folder's name begins with it."""
LOCK = "lock"
"""The file in the folder that the driver and the reaper keep locked."""
MAKING_S = 3600.0
"""Seconds after which a folder that is still being made counts as abandoned."""
LONGEST_SOCKET = 107
"""The most bytes that the path of a Unix socket may have on Linux."""
_BELOW = len("/r/session_12345678/sockets/dash_TaskEventsHead")
"""Bytes of that path that Ray needs below the folder, with the name that its session gets here."""
REAPED_WITHIN_S = reaper.ENDS_WITHIN_S + 5
"""Seconds to wait for the reaper to end."""


def parent() -> Path:
    """Where Ray's folders are made, by Ray's own rule: RAY_TMPDIR, or TMPDIR if that exists, or /tmp."""
    named = os.environ.get("TMPDIR", "")
    return Path(os.environ.get("RAY_TMPDIR") or (named if Path(named).is_dir() and named else "/tmp")).absolute()  # noqa: S108


class Home:
    """The folder of one Ray, and the reaper that removes it. Raises InputError where the folder cannot be made, and
    OSError where the reaper cannot be started."""

    def __init__(self) -> None:
        place = parent()
        sweep(place)
        self.path, self._lock = _make(place)
        mine, theirs = os.pipe()
        try:
            self._reaper = subprocess.Popen(
                [sys.executable, "-I", reaper.__file__, str(self.path), str(os.getpid())],
                stdin=mine, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                pass_fds=(self._lock,), start_new_session=True, preexec_fn=reaper.ignore_signals,
            )  # fmt: skip
        except OSError:
            os.close(theirs)
            os.close(self._lock)
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        finally:
            os.close(mine)
        self._pipe = theirs

    @property
    def ray(self) -> Path:
        """Ray's own folder, which Ray makes writable by everybody."""
        return self.path / "r"

    @property
    def session(self) -> str:
        """The name for Ray's session. Ray's own choice is 20 characters longer: too long for the paths of sockets."""
        return f"session_{self.path.name.removeprefix(PREFIX)}"

    @property
    def temporary(self) -> Path:
        """The temporary folder of Ray's processes, trials among them."""
        return self.path / "t"

    @contextmanager
    def starting(self, services: Any) -> Iterator[None]:
        """Inside this block, processes that `ray._private.services` starts get this home: temporary folder, session,
        reaper."""
        before = services.ConsolePopen
        services.ConsolePopen = self._start
        try:
            yield
        finally:
            services.ConsolePopen = before

    def _start(self, *arguments: Any, preexec_fn: Callable[[], None] | None = None, **more: Any) -> Any:
        """Starts a process in a session of its own. It sends its id to the reaper before it executes its program, so
        that the reaper ends it whenever the driver dies."""

        def begin() -> None:
            os.write(self._pipe, b"%d\n" % os.getpid())
            if preexec_fn is not None:
                preexec_fn()

        more["env"] = {**(more.get("env") or os.environ), "TMPDIR": str(self.temporary)}
        if arguments and arguments[0][0] == sys.executable:
            # Ray's own Python processes: the dashboard starts others by `python -c`, which would take a `ray.py` or a
            # `psutil.py` of the current folder for the library, and `ray.init` then waits a minute for a dashboard
            more["env"]["PYTHONSAFEPATH"] = "1"
        start: Any = subprocess.Popen
        return start(*arguments, preexec_fn=begin, start_new_session=True, **more)

    def clear(self) -> None:
        """Has the reaper kill Ray's processes and remove the folder. May be called twice."""
        if self._pipe >= 0:
            os.close(self._pipe)
            os.close(self._lock)
            self._pipe = self._lock = -1
            with suppress(subprocess.TimeoutExpired):
                self._reaper.wait(REAPED_WITHIN_S)


def _make(place: Path) -> tuple[Path, int]:
    """Makes a folder in `place`; returns it and the descriptor of its lock. It gets its name once it is locked: before
    that `sweep` of another search could remove it."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))
    except OSError as error:
        raise InputError(
            f"Ray's temporary folder cannot be made ({error.strerror})",
            where=str(place),
            expected="a folder that you can write to (RAY_TMPDIR, TMPDIR or /tmp)",
            remedy="set RAY_TMPDIR to one, with a short path and some room",
        ) from error
    path = place / new.name.removeprefix(".")
    if len(os.fsencode(path)) + _BELOW > LONGEST_SOCKET:
        new.rmdir()
        most = LONGEST_SOCKET - _BELOW - len(path.name) - 1
        raise InputError(
            f"{len(os.fsencode(place))} bytes are too long a path for Ray's temporary folder: it keeps sockets there",
            where=str(place),
            expected=f"at most {most} bytes (RAY_TMPDIR, TMPDIR or /tmp)",
            remedy="set RAY_TMPDIR to a short path, such as /tmp",
        )
    (new / "t").mkdir()
    lock = os.open(new / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    new.rename(path)
    return path, lock


def sweep(place: Path) -> None:
    """Removes the folders of this user's searches whose driver and reaper are both dead, after a crash of the
    machine."""
    with suppress(OSError):
        for folder in [*place.glob(f"{PREFIX}*"), *place.glob(f".{PREFIX}*")]:
            with suppress(OSError):
                if folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
                    _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Removes a folder that is not locked. Raises OSError for one that is."""
    if folder.name.startswith("."):
        if time.time() - folder.stat().st_mtime > MAKING_S:
            shutil.rmtree(folder, ignore_errors=True)
        return
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
