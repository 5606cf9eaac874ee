"""The sign that a trial is alive: a file that it touches, so that a watchdog need not wait for its next evaluation."""

from __future__ import annotations

import time
from pathlib import Path

from tuner.contract import ALIVE, STATE

_EVERY_S = 1.0


class Sign:
    """The sign of one trial, left below its folder once a second at most."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / STATE / ALIVE
        self._left = 0.0

    def leave(self) -> None:
        now = time.monotonic()
        if now - self._left >= _EVERY_S:
            self._left = now
            self._file.parent.mkdir(exist_ok=True)  # and not its parents: a folder that was moved stays moved
            self._file.touch()
