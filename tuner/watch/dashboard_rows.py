"""Shows every trial as a task in the Ray dashboard.

The dashboard can name an actor after a trial only if each trial has an actor of its own, which is a new process: 0.7 s
of a core. A task has a name too, which is shown from the moment it is submitted, and one process runs one task after
another. So a trial is a task beside it (trial_row.py) that runs as long as the trial does: in the tables of tasks a
trial that runs is RUNNING, one that ended FINISHED, and one that failed FAILED, with its reason. As many processes are
needed as trials run at a time, not as many as there are trials.

When a row has returned, a second task, which does nothing, has the ending as its name: "first · trial 7 · pruned at
step 40: rung 1 (3.000, needed 2.000)". The rows read the ledger, so a report costs the driver nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tuner.contract import Status
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind, Ledger
from tuner.watch.trial_row import Row, ending, ends, trial, trial_ended

TICK_S = 0.2
"""Seconds between two looks at which rows are due and which have returned."""
APPEARS_AFTER_S = 2.0
"""Seconds from a trial's set-up to its row, where a process has to be started for it: 16 processes started earlier
would delay those that 16 packed trials wait for."""
AT_LAST_S = 30.0
"""Seconds from a trial's start to its row if the set-up takes longer: to load a base of 70B takes minutes."""
FREE_S = 0.7
"""Seconds for which a process that a row has left is taken for the next one; Ray ends an idle one after one second."""
MOST_NAME = 240
"""Characters of an ending in the name of a task."""


@dataclass
class _Waiting:
    """An attempt without a row yet."""

    row: Row
    due: float
    """The monotonic time at which it gets one."""
    ended: str = ""
    """Its ending, if it is over."""


class DashboardRows:
    """The rows of the trials of a search. A listener of its ledger; `tick` is called from the driver's loop.

    title: makes a trial's title from its number and parameters. about: lines that every row's log begins with.
    """

    def __init__(
        self,
        folder: RunFolder,
        ledger: Ledger,
        *,
        title: Callable[[int, Mapping[str, Any]], str],
        objective: str,
        about: Sequence[str] = (),
    ) -> None:
        # A row that raises is what it is for; without this Ray logs each whose result nobody asked for as an error
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        self._folder, self._ledger, self._title = folder, ledger, title
        self._objective, self._about = objective, tuple(about)
        self._waiting: dict[int, _Waiting] = {}
        """Attempts without a row, by the trial's number."""
        self._shown: dict[Any, Row] = {}
        """Rows that have not returned, by the reference to what they return."""
        self._endings: dict[Row, str] = {}
        """How the attempts of shown rows ended."""
        self._telling: set[Any] = set()
        """The tasks with endings as names that have not returned."""
        self._free: list[float] = []
        """When processes became free for the next row, as monotonic times."""
        self._calls: dict[Callable[..., None], Any] = {}
        """What is submitted, as Ray has it: a new one each time would be sent to the cluster each time."""

    def __call__(self, event: Event) -> None:
        """Takes in an event of the ledger."""
        if event.number is None:
            return
        now = time.monotonic()
        waiting = self._waiting.get(event.number)
        if event.event is Kind.STARTED:
            self._waiting[event.number] = _Waiting(self._row(event), now + AT_LAST_S)
        elif event.event is Kind.SETUP and waiting is not None:
            waiting.due = min(waiting.due, now + APPEARS_AFTER_S)
        elif ends(event) and waiting is not None:
            if event.status == Status.FAILED:
                waiting.ended, waiting.due = ending(event), now
            else:  # to start a process for it would cost more than it did
                del self._waiting[event.number]
        elif ends(event):
            shown = (row for row in self._shown.values() if (row.number, row.attempt) == (event.number, event.attempt))
            for row in shown:
                self._endings[row] = ending(event)

    def tick(self) -> None:
        """Makes the rows that are due, and tells the endings of those that have returned."""
        self._settle()
        now = time.monotonic()
        self._free = [since for since in self._free if now - since < FREE_S]
        for number, waiting in list(self._waiting.items()):
            if now >= waiting.due or self._free:
                del self._waiting[number]
                self._show(waiting)

    def clear(self, within_s: float) -> None:
        """Waits at most `within_s` seconds until all rows have returned: Ray counts what it ends as failed."""
        for waiting in self._waiting.values():
            if waiting.ended:
                self._show(waiting)
        self._waiting.clear()
        until = time.monotonic() + within_s
        while (self._shown or self._telling) and time.monotonic() < until:
            self._settle()
            time.sleep(0.05)

    def _row(self, event: Event) -> Row:
        assert event.number is not None
        folder, attempt = self._folder, event.attempt or 1
        title = f"{folder.name} · {self._title(event.number, event.params or {})}"
        return Row(
            title=title if attempt == 1 else f"{title} · attempt {attempt}",
            number=event.number,
            attempt=attempt,
            ledger=str(folder.ledger.absolute()),
            offset=self._ledger.size,
            log=str(folder.log(event.number).absolute()),
            objective=self._objective,
            about=self._about,
        )

    def _show(self, waiting: _Waiting) -> None:
        """Submits the task of a row."""
        row = waiting.row
        self._shown[self._submit(trial, row.title, row)] = row
        if waiting.ended:
            self._endings[row] = waiting.ended
        if self._free:
            self._free.pop()

    def _settle(self) -> None:
        """Looks which tasks have returned."""
        asked = [*self._shown, *self._telling]
        if not asked:
            return
        for done in ray.wait(asked, num_returns=len(asked), timeout=0)[0]:
            with suppress(Exception):  # a failed trial, or a process that died; nobody else asks
                ray.get(done)
            row = self._shown.pop(done, None)
            if row is None:
                self._telling.discard(done)
                self._free.append(time.monotonic())
            elif told := self._endings.pop(row, ""):
                name = f"{self._folder.name} · trial {row.number} · {told}"[:MOST_NAME]
                self._telling.add(self._submit(trial_ended, name))

    def _submit(self, call: Callable[..., None], name: str, *arguments: Row) -> Any:
        if call not in self._calls:  # on the driver's node, which has the ledger
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._calls[call] = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(call)
        return self._calls[call].options(name=name).remote(*arguments)
