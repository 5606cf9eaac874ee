"""The disk of a run: a search pauses where it runs out of room, and goes on when there is some.

Two signs: little is left (looked at once a second), and something could not be written. The driver then stands still
in the place where it notices. Nobody reports to it meanwhile: a trial trains to its next evaluation and waits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.disks import is_full

if TYPE_CHECKING:
    from tuner.study.study import Study

CHECK_S = 1.0
LEAST_BYTES = 64 * 1024
"""Pause below this whatever the settings say: the line of one ending with its traceback has about as much."""
SHARE = 4
"""A running search pauses below a quarter of what it asked for at its start, and goes on at half of it."""


class Room:
    """Watches the disk under `path`.

    wanted: bytes that a search asks for at its start. say: shows a sentence while the driver stands still, "" when it
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
        self._low, self._enough = max(LEAST_BYTES, wanted // SHARE), max(2 * LEAST_BYTES, 2 * wanted // SHARE)
        self._looked = 0.0
        self._full_since: float | None = None
        self.open = True
        """False: a write that fails fails, and nobody waits. For the end of a search, when signals are muted."""

    def tick(self) -> None:
        """A turn in the driver's loop: stands still here while there is too little room."""
        now = time.monotonic()
        if now - self._looked < CHECK_S or not self.open:
            return
        self._looked = now
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
            time.sleep(CHECK_S / 2)
        if not self._stopping():
            self._tell_the_end(now)

    def full(self, error: OSError) -> None:
        """Something could not be written: waits until it is worth another try. Raises the error where that is over."""
        if not self.open or self._stopping():
            raise error
        if self._full_since is None:
            self._full_since = time.monotonic()
            self._say(f"paused: no room on the disk of {self._path}; make room, or press Ctrl-C and resume later")
        time.sleep(CHECK_S)  # at least: a quota that is used up does not show in what is free
        while self._free() < LEAST_BYTES and not self._stopping():
            time.sleep(CHECK_S / 2)

    def patient(self, write: Callable[[], None]) -> None:
        """Calls `write`, and again where the disk was full."""
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
        return shutil.disk_usage(self._path).free


class StudyOnDisk:
    """A study whose disk may fill up: once there is room it is made anew from the ledger, which has every fact."""

    def __init__(self, make: Callable[[], Study], room: Room) -> None:
        self._make, self._room = make, room
        self._study = make()

    def call(self, what: Callable[[Study], Any], again: bool = False) -> Any:
        """Calls the study. again: also one that was made anew, because the ledger does not have what is asked."""
        made_anew = False
        while True:
            try:
                if made_anew:
                    self._study = self._make()
                return what(self._study) if again or not made_anew else None
            except OSError as error:
                if not is_full(error):
                    raise
                self._room.full(error)
                made_anew = True


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB" if size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"
