"""What a tracker is told of a search, and how.

Each tracker works in a thread of its own, fed by a queue: a server that is slow, or not there, costs the search
nothing. A tracker that raises is left out from then on, and a note in the ledger says so, once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.error_text import named_line
from tuner.results.ledger import Event, Kind
from tuner.results.records import Point, SearchRecord, TrialRecord
from tuner.watch.gauges import tokens_per_second

CLOSE_S = 30.0
"""How long the end of a search waits for its trackers, all of them together, to hand over what they have."""
CUT_S = 3.0
"""The same after a signal: whoever sent it (a batch system, say) has not long to wait."""
MOST_WAITING = 10_000
"""Events that wait for a tracker at most: those of a thousand trials, 10 MB."""


@dataclass(frozen=True)
class Run:
    """One attempt at a trial, as trackers know it. name: "trial 7", "trial 7 attempt 2"."""

    number: int
    name: str
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Ending:
    """How it ended: Status and Reason in words, "interrupted" where it is run again, "parked" where it may be."""

    status: str
    reason: str
    best: Mapping[str, float | None]
    """Its best finite value by the name that trackers have for it ("best_eval_loss"); None where there is none."""

    @property
    def measured(self) -> dict[str, float]:
        """`best` without what there is not."""
        return {name: value for name, value in self.best.items() if value is not None}


class Tracker(Protocol):
    """One way to write a search down. Made once a session; called from one thread, in order."""

    def __init__(self, search: str, folder: Path) -> None:
        """search: its name. folder: the run folder."""

    def start(self, run: Run) -> None: ...

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """One evaluation. Values may be no finite numbers."""

    def end(self, run: Run, ending: Ending) -> None: ...

    def close(self, summary: Mapping[str, Any]) -> None:
        """The session is over; `summary` is flat, text and numbers."""


class Tracking:
    """Listens to a ledger and tells trackers. record: the search, which has taken in an event before this hears of it.

    makers: by name, what makes the tracker. note: takes a sentence for the user.
    """

    def __init__(
        self, makers: Mapping[str, Callable[[], Tracker]], record: SearchRecord, note: Callable[[str], None]
    ) -> None:
        self._record, self._note = record, note
        self._lanes = [_Lane(name, make) for name, make in makers.items()]

    def __call__(self, event: Event) -> None:
        trial = self._record.trials.get(-1 if event.number is None else event.number)
        match event.event:
            case Kind.FINISHED:
                self._tell("close", summary_of(self._record))
            case Kind.STARTED if trial is not None:
                self._tell("start", run_of(trial))
            case Kind.EVALUATION if trial is not None and trial.points:
                point = trial.points[-1]
                self._tell("log", run_of(trial), point.step, metrics_of(trial, point))
            case Kind.ENDED | Kind.INTERRUPTED | Kind.RETRY | Kind.PARKED if trial is not None:
                self._tell("end", run_of(trial), ending_of(trial))
        self._say_failures()

    def close(self, seconds: float = CLOSE_S) -> None:
        """Waits until all is written, `seconds` at most."""
        until = time.monotonic() + seconds
        for lane in self._lanes:
            lane.finish()
        for lane in self._lanes:
            lane.join(max(0.0, until - time.monotonic()), seconds)
        self._say_failures()

    def _tell(self, method: str, *arguments: Any) -> None:
        for lane in self._lanes:
            lane.put(method, arguments)

    def _say_failures(self) -> None:
        for lane in [lane for lane in self._lanes if lane.failure and not lane.said]:
            lane.said = True
            self._note(f"the tracker {lane.name} failed, and the search goes on without it: {lane.failure}")


class _Lane:
    """One tracker and the thread it works in."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name, self.failure, self.said = name, "", False
        self._make = make
        self._orders: queue.Queue[tuple[str, tuple[Any, ...]] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no further one
            self.failure = str(error)

    def put(self, method: str, arguments: tuple[Any, ...]) -> None:
        self._order((method, arguments))

    def finish(self) -> None:
        """Tells it that nothing follows."""
        self._order(None)

    def join(self, seconds: float, waited: float) -> None:
        """Waits for its end. waited: what that comes to with the others' time."""
        if self._thread.ident is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive() and not self.failure:
            self.failure = f"it was not done {waited:g} s after the search"

    def _order(self, order: tuple[str, tuple[Any, ...]] | None) -> None:
        if self.failure:
            return
        try:
            self._orders.put_nowait(order)
        except queue.Full:
            self.failure = f"{MOST_WAITING:,} events wait for it"

    def _run(self) -> None:
        try:
            tracker = self._make()
            while (order := self._orders.get()) is not None and not self.failure:
                method, arguments = order
                getattr(tracker, method)(*arguments)
        except BaseException as error:  # some libraries exit the interpreter where a key is missing
            self.failure = named_line(error, 200)


def run_of(trial: TrialRecord) -> Run:
    attempt = f" attempt {trial.attempt}" if trial.attempt > 1 else ""
    return Run(trial.number, f"trial {trial.number}{attempt}", dict(trial.params))


def metrics_of(trial: TrialRecord, point: Point) -> dict[str, float]:
    """What an evaluation measured, without what it did not."""
    values = {
        "train_loss": point.train_loss,
        "tokens": point.tokens,
        "tokens_per_second": tokens_per_second(trial, point),
        "memory_bytes": point.memory,
        **point.metrics,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def ending_of(trial: TrialRecord) -> Ending:
    best = {f"best_{trial.objective.name}": trial.best_value}
    if trial.status is None:
        return Ending(trial.state, trial.state, best)
    return Ending(str(trial.status), str(trial.reason), best)


def summary_of(record: SearchRecord) -> dict[str, Any]:
    best = record.best
    summary: dict[str, Any] = {"trials": len(record.trials), "outcome": record.outcome, "tokens": record.tokens}
    if best is not None:
        summary |= {"best_trial": best.number, **ending_of(best).best}
        summary |= {f"best_{name}": value for name, value in flat(best.params).items()}
    return summary


def flat(params: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Parameters as every library takes them: a list of modules becomes text."""
    return {
        name: value if isinstance(value, str | int | float | bool) else "+".join(map(str, value or ()))
        for name, value in params.items()
    }
