"""A row in the Ray dashboard for every running trial.

Ray asks an actor for its repr once, at its creation, and shows that for ever; nothing in Ray 2.60 changes it, short
of starting the process anew. Our workers outlive their trials, so a worker's repr cannot name the trial it runs. Each
trial that lives longer than a moment therefore gets a small actor of its own, without resources, whose repr is the
trial's title and which dies when the trial ends: the dashboard's Actors page then lists the trials, running ones
alive and ended ones dead.

How far a trial is, the row cannot say; the row's own page can. Each report is one named task of the actor ("step
120/300 · 2.31"), so the page's task table is the trial's curve, and the actor prints the report and what the trial's
log has gained since, so the row's Log link opens the trial's log. A row costs half a second of CPU beside the trial,
a report under a millisecond in the driver's loop.
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
"""After its set-up. A trial that ends sooner is not worth a process, and before it 16 processes would be in the way of
those that 16 packed trials wait for."""
AT_LAST_S = 30.0
"""For a trial that takes long to set up: a base of 70B is loaded in minutes."""
MOST_LOG_BYTES = 2**16
"""Of a trial's log, passed on at a time; a library that says more between two reports is read in the run folder."""


class Trial:
    """The actor behind a row. Its class is what the dashboard calls it."""

    def __init__(self, title: str, about: Sequence[str], log: str) -> None:
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
            pass  # nothing was said yet, or the log is on another machine
        self._say(line)

    def _say(self, *lines: str) -> None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()


@dataclass(frozen=True)
class _Waiting:
    due: float
    title: str
    log: str


@dataclass
class DashboardRows:
    """The rows of the trials that run now, by number. about: lines that every row's log begins with. Used from the
    driver's loop alone."""

    about: Sequence[str] = ()
    _failed: bool = False
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _shown: dict[int, Any] = field(default_factory=dict)

    def begin(self, number: int, title: str, log: str) -> None:
        self._waiting[number] = _Waiting(time.monotonic() + AT_LAST_S, title, log)

    def set_up(self, number: int) -> None:
        """The trial is about to take its first step."""
        if (waiting := self._waiting.get(number)) is not None:
            self._waiting[number] = replace(waiting, due=min(waiting.due, time.monotonic() + APPEARS_AFTER_S))

    def report(self, number: int, what: str) -> None:
        """Says how far a trial is, where it has its row by now."""
        actor = self._shown.get(number)
        if actor is not None:
            with self._dropped():
                actor.report.options(name=f"trial {number} · {what}").remote(what)

    def end(self, number: int) -> None:
        self._waiting.pop(number, None)
        actor = self._shown.pop(number, None)
        if actor is not None:
            with self._dropped():
                ray.kill(actor)

    def tick(self) -> None:
        """Puts up the rows that are due."""
        now = time.monotonic()
        for number, waiting in list(self._waiting.items()):
            if now >= waiting.due:
                del self._waiting[number]
                with self._dropped():
                    about = [*self.about, f"log    {waiting.log}"]
                    made = ray.remote(Trial).options(num_cpus=0, max_restarts=0)
                    self._shown[number] = made.remote(waiting.title, about, waiting.log)

    def clear(self) -> None:
        for number in [*self._waiting, *self._shown]:
            self.end(number)

    @contextmanager
    def _dropped(self) -> Iterator[None]:
        """What Ray raises is said once, in the run's log: a row that is missing is not worth a search."""
        try:
            yield
        except Exception as error:
            if not self._failed:
                self._failed = True
                note(f"a row of the Ray dashboard failed: {type(error).__name__}: {error}")
