"""Finds trials that hang: running trials that have shown no progress for too long.

Progress is a report, or a change of the heartbeat file that the program touches (contract.ALIVE). The file is only read
when a report is overdue, and only a change of its time counts, not the time itself: another machine's clock set it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tuner.contract import ALIVE, STATE

AT_LEAST_S = 3600.0
"""The shortest timeout where none is set, in seconds: a base of 70 billion parameters takes half an hour to load."""
STANDSTILL_S = 5.0
"""Seconds between two calls of `hanging`, which the driver makes several times a second, after which the driver itself
is taken to have stood still (a full disk, a stopped process): it took no reports, so that time does not count."""
TIMES_THE_LONGEST = 20.0
"""Where no timeout is set, it is also this many times the longest silence after which a trial reported again."""


@dataclass
class _Heard:
    since: float
    """When the trial last showed progress, by the watchdog's clock in seconds."""
    heartbeat: Path
    seen: int = 0
    """The heartbeat's modification time in ns when it was last read."""


class Watchdog:
    """Notes when each trial showed progress. timeout: seconds of silence after which a trial hangs; None: scaled to the
    longest silence so far; 0: never."""

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout, self._clock = timeout, clock
        self._longest = 0.0
        self._heard: dict[str, _Heard] = {}
        self._next_look = 0.0
        self._turn = clock()

    @property
    def timeout(self) -> float:
        """Seconds of silence after which a trial hangs; 0: never."""
        if self._timeout is not None:
            return self._timeout
        return max(AT_LEAST_S, TIMES_THE_LONGEST * self._longest)

    def begin(self, trial_id: str, folder: str) -> None:
        """Begins to watch a trial that is about to start."""
        self._heard[trial_id] = _Heard(self._clock(), Path(folder, STATE, ALIVE))

    def heard(self, trial_id: str) -> None:
        """Notes a report of a trial."""
        if (heard := self._heard.get(trial_id)) is not None:
            now = self._clock()
            self._longest = max(self._longest, now - heard.since)
            heard.since = now

    def end(self, trial_id: str) -> None:
        """Stops watching a trial."""
        self._heard.pop(trial_id, None)

    def hanging(self, running: Callable[[], Iterable[str]]) -> list[tuple[str, float]]:
        """The trials of `running` that hang, each with the seconds of its silence. Cheap to call often: it checks the
        trials a hundred times in a timeout. The silence of one that does not run (paused, no worker) does not count."""
        now, timeout = self._clock(), self.timeout
        stood, self._turn = now - self._turn, now
        if stood > STANDSTILL_S:
            for heard in self._heard.values():
                heard.since = min(now, heard.since + stood)
        if timeout <= 0 or now < self._next_look:
            return []
        self._next_look = now + min(timeout / 100, 10.0)
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
            seen = heard.heartbeat.stat().st_mtime_ns
        except OSError:
            return False
        if seen == heard.seen:
            return False
        heard.seen, heard.since = seen, now
        return True
