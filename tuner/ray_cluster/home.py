"""Where a Ray that a search starts lives: in a folder that is the user's alone, and in sessions of its own.

The folder holds Ray's sockets and logs and what its processes write to their temporary folder. Ray makes its own tree
readable and writable by everybody; around it lies one that is not. The sessions are there because whoever signals the
driver's process group (`timeout`, a shell that closes, Slurm) does not mean Ray: the driver needs it to save what runs.
`reaper.py` ends and removes all of it when the driver has gone, and the next search what a machine that went down left.
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
LOCK = "lock"
MAKING_S = 3600.0
"""A folder that is still being made after an hour belongs to nobody."""
LONGEST_SOCKET = 107
"""Bytes in the path of a Unix socket."""
_BELOW = len("/r/session_12345678/sockets/dash_TaskEventsHead")
"""Of which Ray needs so many below the folder, its session named as it is here."""
REAPED_WITHIN_S = reaper.ENDS_WITHIN_S + 5


def parent() -> Path:
    """Where Ray's folders are made: as Ray itself has it, RAY_TMPDIR, or TMPDIR if it is there, or /tmp."""
    named = os.environ.get("TMPDIR", "")
    return Path(os.environ.get("RAY_TMPDIR") or (named if Path(named).is_dir() and named else "/tmp")).absolute()  # noqa: S108


class Home:
    """A folder for one Ray, and the process that clears it away. Raises InputError where none can be made."""

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
        """Ray's own tree, which it opens to everybody."""
        return self.path / "r"

    @property
    def session(self) -> str:
        """Ray's name for its session: its own is 20 characters longer, which the paths of sockets have no room for."""
        return f"session_{self.path.name.removeprefix(PREFIX)}"

    @property
    def temporary(self) -> Path:
        """The temporary folder of Ray's processes, trials among them."""
        return self.path / "t"

    @contextmanager
    def starting(self, services: Any) -> Iterator[None]:
        """What `ray._private.services` starts in here lives in this home."""
        before = services.ConsolePopen
        services.ConsolePopen = self._start
        try:
            yield
        finally:
            services.ConsolePopen = before

    def _start(self, *arguments: Any, preexec_fn: Callable[[], None] | None = None, **more: Any) -> Any:
        """A process in a session of its own. It tells the reaper before it becomes what it is to be, so that nothing
        is left of it whenever the driver dies."""

        def begin() -> None:
            os.write(self._pipe, b"%d\n" % os.getpid())
            if preexec_fn is not None:
                preexec_fn()

        more["env"] = {**(more.get("env") or os.environ), "TMPDIR": str(self.temporary)}
        start: Any = subprocess.Popen
        return start(*arguments, preexec_fn=begin, start_new_session=True, **more)

    def clear(self) -> None:
        """Ends what is left of Ray, and removes the folder. May be called twice."""
        if self._pipe >= 0:
            os.close(self._pipe)
            os.close(self._lock)
            self._pipe = self._lock = -1
            with suppress(subprocess.TimeoutExpired):
                self._reaper.wait(REAPED_WITHIN_S)


def _make(place: Path) -> tuple[Path, int]:
    """A new folder in `place` and its lock. It gets its name when it is locked: before, `sweep` could take it away."""
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
    """Removes what searches of this user left whose driver and reaper are both dead: a machine went down."""
    with suppress(OSError):
        for folder in [*place.glob(f"{PREFIX}*"), *place.glob(f".{PREFIX}*")]:
            with suppress(OSError):
                if folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
                    _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
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
