"""Finds trials that hang: which running trial has shown no progress for too long.

Progress is a report, or a sign that the program leaves in the trial's folder (contract.ALIVE). The sign is only looked
at when a report is overdue, and only its change counts, never its time: another machine's clock wrote it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tuner.contract import ALIVE, STATE

AT_LEAST_S = 3600.0
"""Silence that is never called hanging where nothing was set: a base of 70 billion parameters takes half an hour to
load."""
STANDSTILL_S = 5.0
"""Between two looks, which the driver takes several times a second: more, and it stood still itself (a full disk, a
stopped process) and heard nobody."""
TIMES_THE_LONGEST = 20.0
"""And so many times the longest silence that a trial of this search came back from."""


@dataclass
class _Heard:
    since: float
    sign: Path
    seen: int = 0


class Watchdog:
    """timeout: seconds of silence after which a trial hangs; None: scaled to what was seen; 0: never."""

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout, self._clock = timeout, clock
        self._longest = 0.0
        self._heard: dict[str, _Heard] = {}
        self._look = 0.0
        self._turn = clock()

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a trial hangs."""
        if self._timeout is not None:
            return self._timeout
        return max(AT_LEAST_S, TIMES_THE_LONGEST * self._longest)

    def begin(self, trial_id: str, folder: str) -> None:
        """A trial that is about to start."""
        self._heard[trial_id] = _Heard(self._clock(), Path(folder, STATE, ALIVE))

    def heard(self, trial_id: str) -> None:
        """A report came."""
        if (heard := self._heard.get(trial_id)) is not None:
            now = self._clock()
            self._longest = max(self._longest, now - heard.since)
            heard.since = now

    def end(self, trial_id: str) -> None:
        """A trial that is over."""
        self._heard.pop(trial_id, None)

    def hanging(self, running: Callable[[], Iterable[str]]) -> list[tuple[str, float]]:
        """Trials of `running` that hang, each with the seconds of its silence. Cheap to ask often: it looks at its
        trials a hundred times a timeout. Those that do not run (paused, waiting for a worker) are not silent."""
        now, timeout = self._clock(), self.timeout
        stood, self._turn = now - self._turn, now
        if stood > STANDSTILL_S:
            for heard in self._heard.values():
                heard.since = min(now, heard.since + stood)
        if timeout <= 0 or now < self._look:
            return []
        self._look = now + min(timeout / 100, 10.0)
        at_work = set(running())
        hanging = []
        for trial_id, heard in self._heard.items():
            if trial_id not in at_work:
                heard.since = now
            elif now - heard.since > timeout and not self._shows_progress(heard, now):
                hanging.append((trial_id, now - heard.since))
        return hanging

    def _shows_progress(self, heard: _Heard, now: float) -> bool:
        try:
            seen = heard.sign.stat().st_mtime_ns
        except OSError:
            return False
        if seen == heard.seen:
            return False
        heard.seen, heard.since = seen, now
        return True
