"""The lock of a run folder: one driver writes it, and to look at the lock never takes it.

It is an open-file-description lock (`F_OFD_SETLK`): the kernel releases it when the driver's process ends, it works
between the machines that share a file system (NFS too), and `F_OFD_GETLK` says whether it is held without taking it. To
look by taking a shared lock has kept a driver from starting.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

from tuner.contract import InputError
from tuner.results.command_line import run_command_line

NAME = ".lock"
"""The lock's file in the run folder."""
_FLOCK = "hhqqi4x"
"""`struct flock`: type, whence, start, length (0: to the end of the file), process (0 for this kind of lock)."""


class RunLock:
    """Locks the run folder at `path` for this process, until `release` or the end of the process.

    Raises InputError if another driver has locked it, or if the lock's file is another user's, who could lock it for
    ever.
    """

    def __init__(self, path: Path) -> None:
        place = path / NAME
        try:  # not through a link: the file that it leads to would be emptied
            lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _not_ours(path, error) from error
        try:
            _require_own(lock, path)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            os.close(lock)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                told = f"the file system gives no locks ({error.strerror})"
                raise InputError(told, where=str(place), remedy="give a --storage-path on another one") from error
            raise InputError(
                f"the run {path.name!r} is being written by another driver" + (f" ({holder})" if holder else ""),
                where=str(path),
                remedy="wait for it, or start under another name; watch it with: "
                f"{run_command_line(path, 'status', path.name)}",
            ) from error
        except InputError:
            os.close(lock)
            raise
        self._lock: int | None = lock
        with suppress(OSError):  # on a full disk the lock works, and only does not say whose it is
            os.fchmod(lock, 0o600)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)

    def release(self) -> None:
        """Unlocks the run folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def is_held(path: Path) -> bool:
    """Whether a driver holds the run folder's lock now. It does not take the lock, so it keeps no driver from
    starting."""
    try:
        lock = os.open(path / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a pipe
    except PermissionError:
        return _is_in_proc_locks(path / NAME)
    except OSError:
        return False
    try:
        asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        return struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK
    except OSError:
        return False
    finally:
        os.close(lock)


def _is_in_proc_locks(place: Path) -> bool:
    """The same for another user's file, which cannot be opened; only locks of this machine are seen."""
    try:
        about = place.stat(follow_symlinks=False)
        name = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
        listed = Path("/proc/locks").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return any(line.split()[3:4] == ["WRITE"] and line.split()[5:6] == [name] for line in listed.splitlines())


def _require_own(lock: int, path: Path) -> None:
    """Raises InputError unless the lock's file is a plain file of this user."""
    about = os.fstat(lock)
    if not stat.S_ISREG(about.st_mode):
        raise InputError("is no file", where=str(path / NAME), expected="a file of its own", remedy="remove it")
    if about.st_uid not in (os.geteuid(), _owner_of_a_new_file(path)):
        raise _anothers(path, about.st_uid)


def _owner_of_a_new_file(path: Path) -> int:
    """The uid that this file system gives to a file of ours: some show every file as one user's."""
    place = path / f"{NAME}.{os.getpid()}"
    try:
        made = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.geteuid()
    with suppress(OSError):
        place.unlink()
    try:
        return os.fstat(made).st_uid
    finally:
        os.close(made)


def _not_ours(path: Path, error: OSError) -> InputError:
    with suppress(OSError):
        about = (path / NAME).lstat()
        if isinstance(error, PermissionError) and stat.S_ISREG(about.st_mode) and about.st_uid != os.geteuid():
            return _anothers(path, about.st_uid)
    told = f"cannot be written ({error.strerror})"
    return InputError(told, where=str(path / NAME), expected="a file of its own")


def _anothers(path: Path, owner: int) -> InputError:
    return InputError(
        f"belongs to another user (uid {owner}), who can hold it for as long as he likes",
        where=str(path / NAME),
        expected=f"a file of uid {os.geteuid()}",
        remedy="go on with the search as that user; or, where none of his drivers runs, delete the file",
    )
