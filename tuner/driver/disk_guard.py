"""Watches the disk of a run: a search pauses where it runs out of room, and ends where its folder fails or is gone.

A disk is full where little is left (checked once a second), or where a write fails for lack of room. The driver's loop
then waits at the place where it noticed. It takes no reports meanwhile: a trial trains to its next evaluation and
waits. A disk that fails, or a folder that is no longer where it was, ends the session like an interruption: nothing is
wrong with any trial, and a resume goes on.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.contract import InputError, Verdict
from tuner.disks import Trouble, ask, is_full, trouble_of
from tuner.results.command_line import resume_command_line

if TYPE_CHECKING:
    from tuner.study.study import Study

CHECK_S = 1.0
"""Seconds between two checks."""
LEAST_BYTES = 64 * 1024
"""A search pauses below this whatever the settings say: the line of one ending with its traceback is about as long."""
SHARE = 4
"""A running search pauses below 1/SHARE of the room that it asks for at its start, and goes on at 2/SHARE of it."""


class DiskLost(Exception):
    """The run folder cannot be written any more. place: where it is now, as far as known. told: what is wrong."""

    def __init__(self, place: Path, told: str) -> None:
        self.place, self.told = place, told
        super().__init__(told)

    @property
    def trouble(self) -> str:
        """What the user is told at the end: what, where, and how to go on."""
        return f"{self.told}; every report before it is kept\n  try: {resume_command_line(self.place)}"

    @property
    def refusal(self) -> InputError:
        """The same before any trial has run, when there is nothing to resume."""
        return InputError(self.told, remedy="look after the disk, or give another --storage-path")


class DiskGuard:
    """Watches the disk under `path`, and that the run folder stays there.

    wanted: free bytes that a search asks for at its start. say: shows a sentence while the driver waits, "" when it
    goes on. note: writes a sentence into the ledger. stopping: whether the wait is to be given up.
    """

    def __init__(
        self,
        path: Path,
        wanted: int,
        *,
        say: Callable[[str], None],
        note: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._path, self._say, self._note, self._stopping = path, say, note, stopping
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        """A descriptor of the folder, which stays its own wherever it is moved to."""
        weakref.finalize(self, os.close, self._folder)
        self._low, self._enough = max(LEAST_BYTES, wanted // SHARE), max(2 * LEAST_BYTES, 2 * wanted // SHARE)
        self._full_since: float | None = None
        self.open = True
        """Whether to wait where there is no room. False at the end of a search, when signals are muted: a write then
        fails."""

    def tick(self) -> None:
        """Waits while there is too little room; called every `CHECK_S` seconds. Raises DiskLost."""
        if not self.open:
            return
        now = time.monotonic()
        self.require_here()
        if self._full_since is not None:  # a write failed and has succeeded since
            self._tell_the_end(self._full_since)
            self._full_since = None
        free = self._free()
        if free >= self._low:
            return
        self._note(
            f"paused: only {_mib(free)} are free on the disk of {self._path}; no trial starts or goes on before there "
            f"are {_mib(self._enough)}"
        )
        self._say("paused: no room on the disk")
        while self._free() < self._enough and not self._stopping():
            self.require_here()
            time.sleep(CHECK_S / 2)
        if not self._stopping():
            self._tell_the_end(now)

    def require_here(self) -> None:
        """Raises DiskLost where the run folder is no longer where it was. A file that is open can still be written
        then, but one that is opened by its path, such as a trial's adapter, would go into a new folder at the old
        place."""
        try:
            here = os.stat(self._path)  # noqa: PTH116  it may be anything by now
            if os.path.samestat(here, os.fstat(self._folder)):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise self._lost(Trouble(error.errno or 0, str(self._path))) from error
        place, gone = self._moved_to()
        told = f"the run folder {self._path} was removed while the search ran" if gone else (
            f"the run folder {self._path} was moved while the search ran; it is {place} now"
        )  # fmt: skip
        raise DiskLost(place, told)

    def require_writable(self) -> None:
        """Raises DiskLost where no file can be made in the run folder, for another reason than a full disk."""
        self.require_here()
        trouble = ask(self._path)
        if trouble is not None and not trouble.is_full:
            raise self._lost(trouble)

    def lost(self, error: BaseException) -> DiskLost | None:
        """The DiskLost that an error stands for; None where the run folder can still be written, or is only full."""
        if isinstance(error, DiskLost):
            return error
        try:
            self.require_here()
        except DiskLost as lost:
            return lost
        trouble = trouble_of(error, None if isinstance(error, InputError) else self._path)
        return None if trouble is None or trouble.is_full else self._lost(trouble)

    def given_up(self, number: int, verdict: Verdict) -> DiskLost:
        """The end of the search where a trial's workers could not write, one after another."""
        return DiskLost(self._path, f"trial {number} was lost again and again, and is not to blame: {verdict.message}")

    def _lost(self, trouble: Trouble) -> DiskLost:
        return DiskLost(self._path, f"the run folder {self._path} cannot be written or read ({trouble.told})")

    def _moved_to(self) -> tuple[Path, bool]:
        """Where the folder is now, and whether it was removed."""
        try:
            now = os.readlink(f"/proc/self/fd/{self._folder}")  # noqa: PTH115
        except OSError:
            return self._path, os.fstat(self._folder).st_nlink == 0
        return (self._path, True) if now.endswith(" (deleted)") else (Path(now), False)

    def full(self, error: OSError) -> None:
        """Waits, after a write failed with `error`, until it is worth another try. Raises `error` where nobody should
        wait."""
        if not self.open or self._stopping():
            raise error
        if self._full_since is None:
            self._full_since = time.monotonic()
            self._say(f"paused: no room on the disk of {self._path}; make room, or press Ctrl-C and resume later")
        time.sleep(CHECK_S)  # in any case: a used-up quota does not show in the free bytes
        while self._free() < LEAST_BYTES and not self._stopping():
            time.sleep(CHECK_S / 2)

    def patient(self, write: Callable[[], None]) -> None:
        """Calls `write`, again and again while the disk is full."""
        while True:
            try:
                return write()
            except OSError as error:
                if not is_full(error):
                    raise
                self.full(error)

    def _tell_the_end(self, since: float) -> None:
        self._say("")
        waited = time.monotonic() - since
        self._note(f"room again ({_mib(self._free())} free): the search goes on after {waited:.0f} s")

    def _free(self) -> int:
        about = os.fstatvfs(self._folder)
        return about.f_bavail * about.f_frsize


class StudyOnDisk:
    """A study whose disk may fill up. Once there is room again it is built anew from the ledger, which has every
    fact."""

    def __init__(self, make: Callable[[], Study], disk: DiskGuard) -> None:
        self._make, self._disk = make, disk
        self._study = make()

    def call(self, what: Callable[[Study], Any], again: bool = False) -> Any:
        """Calls `what` with the study. again: also with one that was built anew; without it, a study from the ledger
        has the result of the call already."""
        rebuilt = False
        while True:
            try:
                if rebuilt:
                    self._study = self._make()
                return what(self._study) if again or not rebuilt else None
            except OSError as error:
                if not is_full(error):
                    raise
                self._disk.full(error)
                rebuilt = True

    def attempt(self, what: Callable[[Study], Any]) -> None:
        """Calls `what` with the study, for what nobody has to wait for; a disk without room does without it."""
        with suppress(OSError):
            what(self._study)


def refused_by_disk(error: OSError, folder: Path) -> InputError | None:
    """The refusal of a search that has not begun, where `error` comes from the disk of `folder`; else None."""
    trouble = trouble_of(error, folder)
    if trouble is None:
        return None
    if trouble.is_full:
        told, remedy = f"no room on the disk ({error})", "make room, or give another --storage-path"
    else:
        told, remedy = f"cannot be written or read ({trouble.told})", "mend the disk, or give another --storage-path"
    return InputError(told, where=str(folder), remedy=remedy)


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"
