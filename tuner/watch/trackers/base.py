"""Calls the trackers with what happens in a search.

Each tracker works in a thread of its own, fed by a queue: a server that is slow or unreachable costs the search
nothing. A tracker that raises is not called any more, and a note in the ledger says so, once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.contract import EVAL_LOSS
from tuner.error_text import named_line
from tuner.results.ledger import Event, Kind
from tuner.results.records import Point, SearchRecord, TrialRecord
from tuner.watch.gauges import tokens_per_second

CLOSE_S = 30.0
"""Seconds that the end of a search waits for all of its trackers together to write what is in their queues."""
CUT_S = 3.0
"""The same after a signal: its sender, such as a batch system, does not wait long before it kills."""
MOST_WAITING = 10_000
"""The most events in a tracker's queue: those of a thousand trials, 10 MB."""


@dataclass(frozen=True)
class Run:
    """One attempt at a trial, as trackers know it."""

    number: int
    """The trial's number."""
    name: str
    """ "trial 7", or "trial 7 attempt 2"."""
    params: Mapping[str, Any]
    """The trial's values by parameter."""
    objective: str = EVAL_LOSS.name
    """The name of what the search makes better."""
    best: float | None = None
    """The trial's best finite value of it so far; None where there is none."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    status: str
    """The trial's `Status`; without an ending "interrupted" (it is run again) or "parked" (it may go on)."""
    reason: str
    """The trial's `Reason`; the same as `status` without an ending."""
    best: Mapping[str, float | None]
    """Its best finite value by the name that trackers have for it ("best_eval_loss"); None where there is none."""

    @property
    def measured(self) -> dict[str, float]:
        """`best` without None."""
        return {name: value for name, value in self.best.items() if value is not None}


class Tracker(Protocol):
    """Writes a search down with one library. Made once a session, and called from one thread, in order."""

    def __init__(self, search: str, folder: Path) -> None:
        """search: its name. folder: the run folder."""

    def start(self, run: Run) -> None:
        """Begins a run."""

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one evaluation. A value may be NaN or infinite."""

    def end(self, run: Run, ending: Ending) -> None:
        """Ends a run."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Ends the session. summary: text and numbers by name."""


class Tracking:
    """A listener of the ledger that calls trackers.

    makers: functions that make a tracker, by its name. record: the search; an event is folded into it before this gets
    it. note: takes a sentence for the user.
    """

    def __init__(
        self, makers: Mapping[str, Callable[[], Tracker]], record: SearchRecord, note: Callable[[str], None]
    ) -> None:
        self._record, self._note = record, note
        self._lanes = [_Lane(name, make) for name, make in makers.items()]
        self._open: set[str] = set()  # names of runs begun in this session and not ended

    def __call__(self, event: Event) -> None:
        trial = self._record.trials.get(-1 if event.number is None else event.number)
        match event.event:
            case Kind.FINISHED:
                self._tell("close", summary_of(self._record))
            case Kind.STARTED if trial is not None:
                run = run_of(trial)
                self._open.add(run.name)
                self._tell("start", run)
            case Kind.EVALUATION if trial is not None and trial.points:
                point = trial.points[-1]
                self._tell("log", run_of(trial), point.step, metrics_of(trial, point))
            case Kind.ENDED | Kind.INTERRUPTED | Kind.RETRY | Kind.PARKED if trial is not None:
                # A trial that is parked, or lost and to be tried again, may be ended with no further attempt; and a
                # resumed session writes the endings that the one before had decided.
                run = run_of(trial)
                if run.name in self._open:
                    self._open.remove(run.name)
                    self._tell("end", run, ending_of(trial))
        self._say_failures()

    def close(self, seconds: float = CLOSE_S) -> None:
        """Waits until the trackers have written everything, at most `seconds` seconds."""
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
    """One tracker, its queue and its thread. failure: why it is not called any more; "" while it is."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self.name, self.failure, self.said = name, "", False
        self._make = make
        self._orders: queue.Queue[tuple[str, tuple[Any, ...]] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no further thread
            self.failure = str(error)

    def put(self, method: str, arguments: tuple[Any, ...]) -> None:
        self._order((method, arguments))

    def finish(self) -> None:
        """Lets the thread end after what is in the queue."""
        self._order(None)

    def join(self, seconds: float, waited: float) -> None:
        """Waits for the thread's end, at most `seconds` seconds. waited: seconds for all trackers, for the message."""
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
        except BaseException as error:  # some libraries raise SystemExit if a key is missing
            self.failure = named_line(error, 200)


def run_of(trial: TrialRecord) -> Run:
    """The trial's last attempt."""
    attempt = f" attempt {trial.attempt}" if trial.attempt > 1 else ""
    name = f"trial {trial.number}{attempt}"
    return Run(trial.number, name, dict(trial.params), trial.objective.name, trial.best_value)


def metrics_of(trial: TrialRecord, point: Point) -> dict[str, float]:
    """The metrics of an evaluation, by the names that trackers have for them, without those that are None."""
    values = {
        "train_loss": point.train_loss,
        "tokens": point.tokens,
        "tokens_per_second": tokens_per_second(trial, point),
        "memory_bytes": point.memory,
        **point.metrics,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def ending_of(trial: TrialRecord) -> Ending:
    """How the trial's last attempt ended."""
    best = {f"best_{trial.objective.name}": trial.best_value}
    if trial.status is None:
        return Ending(trial.state, trial.state, best)
    return Ending(str(trial.status), str(trial.reason), best)


def summary_of(record: SearchRecord) -> dict[str, Any]:
    """The facts of a search for its parent run, by name."""
    best = record.best
    summary: dict[str, Any] = {"trials": len(record.trials), "outcome": record.outcome, "tokens": record.tokens}
    if best is not None:
        summary |= {"best_trial": best.number, **ending_of(best).best}
        summary |= {f"best_{name}": value for name, value in flat(best.params).items()}
    return summary


def flat(params: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Parameters in types that every library takes: a list of modules becomes text."""
    return {
        name: value if isinstance(value, str | int | float | bool) else "+".join(map(str, value or ()))
        for name, value in params.items()
    }
