"""The file that shows that a trial is alive, so that a watchdog need not wait for its next evaluation."""

from __future__ import annotations

import time
from pathlib import Path

from tuner.contract import ALIVE, STATE

_EVERY_S = 1.0


class Heartbeat:
    """The heartbeat of one trial: a file below its folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / STATE / ALIVE
        self._last = 0.0

    def beat(self) -> None:
        """Touches the file, once a second at most."""
        now = time.monotonic()
        if now - self._last >= _EVERY_S:
            self._last = now
            self._file.parent.mkdir(exist_ok=True)  # not its parents: a folder that was moved stays moved
            self._file.touch()
