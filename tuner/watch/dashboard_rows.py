"""Shows a row in the Ray dashboard for every running trial.

Ray asks an actor for its repr once, at its creation; nothing in Ray 2.60 changes what it shows, except a restart of the
process. Our workers outlive their trials, so a worker's repr cannot name the trial that it runs. Each trial that runs
for more than a few seconds therefore gets a small actor of its own, without resources. Its repr is the trial's title,
and it is killed when the trial ends: the dashboard's Actors page then lists the trials, running ones as alive and ended
ones as dead.

The row cannot say how far a trial is, but the actor's page can. Each report is one named task of the actor ("step
120/300 · 2.31"), so the page's task table is the trial's curve. The actor prints the report and the new part of the
trial's log, so the row's Log link opens the trial's log. A row costs half a second of CPU beside the trial, a report
less than a millisecond in the driver's loop.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from tuner.streams import note

APPEARS_AFTER_S = 2.0
"""Seconds from a trial's set-up to its row. A trial that ends sooner is not worth a process, and 16 processes started
earlier would delay those that 16 packed trials wait for."""
AT_LAST_S = 30.0
"""Seconds from a trial's start to its row if the set-up takes longer: to load a base of 70B takes minutes."""
MOST_LOG_BYTES = 2**16
"""The most that is passed on of a trial's log with one report; all of it is in the run folder."""


class Trial:
    """The actor of a row. The dashboard shows the name of its class."""

    def __init__(self, title: str, about: Sequence[str], log: str) -> None:
        """about: lines that the row's log begins with. log: the trial's log file."""
        self._title, self._log, self._read = title, Path(log), 0
        self._say(title, *about)

    def __repr__(self) -> str:
        return self._title

    def report(self, line: str) -> None:
        """Prints a report, and the trial's log since the last one."""
        try:
            size = self._log.stat().st_size
            with self._log.open("rb") as log:
                log.seek(max(self._read, size - MOST_LOG_BYTES))
                self._say(*log.read(MOST_LOG_BYTES).decode("utf-8", "replace").splitlines())
            self._read = size
        except OSError:
            pass  # there is no log yet, or it is on another machine
        self._say(line)

    def _say(self, *lines: str) -> None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()


@dataclass(frozen=True)
class _Waiting:
    """A trial that has no row yet. due: the monotonic time at which it gets one."""

    due: float
    title: str
    log: str


@dataclass
class DashboardRows:
    """The rows of the trials that run now. Called from the driver's loop only."""

    about: Sequence[str] = ()
    """Lines that every row's log begins with."""
    _failed: bool = False
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    """Trials without a row, by number."""
    _shown: dict[int, Any] = field(default_factory=dict)
    """The actors of the rows, by the trial's number."""

    def begin(self, number: int, title: str, log: str) -> None:
        """A trial begins; it gets its row later. log: its log file."""
        self._waiting[number] = _Waiting(time.monotonic() + AT_LAST_S, title, log)

    def set_up(self, number: int) -> None:
        """The trial's set-up is done: it gets its row in APPEARS_AFTER_S seconds."""
        if (waiting := self._waiting.get(number)) is not None:
            self._waiting[number] = replace(waiting, due=min(waiting.due, time.monotonic() + APPEARS_AFTER_S))

    def report(self, number: int, what: str) -> None:
        """Shows how far a trial is, if it has a row. what: "step 120/300 · 2.31"."""
        actor = self._shown.get(number)
        if actor is not None:
            with self._dropped():
                actor.report.options(name=f"trial {number} · {what}").remote(what)

    def end(self, number: int) -> None:
        """The trial has ended: its row is marked dead."""
        self._waiting.pop(number, None)
        actor = self._shown.pop(number, None)
        if actor is not None:
            with self._dropped():
                ray.kill(actor)

    def tick(self) -> None:
        """Makes the rows that are due."""
        now = time.monotonic()
        for number, waiting in list(self._waiting.items()):
            if now >= waiting.due:
                del self._waiting[number]
                with self._dropped():
                    about = [*self.about, f"log    {waiting.log}"]
                    made = ray.remote(Trial).options(num_cpus=0, max_restarts=0)
                    self._shown[number] = made.remote(waiting.title, about, waiting.log)

    def clear(self) -> None:
        """Ends all rows."""
        for number in [*self._waiting, *self._shown]:
            self.end(number)

    @contextmanager
    def _dropped(self) -> Iterator[None]:
        """Drops what Ray raises, and writes the first error into the run's log: a missing row must not end a search."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                self._failed = True
                note(f"a row of the Ray dashboard failed: {type(error).__name__}: {error}")
