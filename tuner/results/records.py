"""Folds events into records: what is known of each trial and of the search.

The live table, `status`, `show`, the leaderboard, the best adapter and resume all read these, so they cannot
disagree. A record is a function of its events alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tuner.contract import EVAL_LOSS, Fit, Objective, Reason, Status, compared_by
from tuner.results.ledger import Event, Kind
from tuner.results.trial import Addition, Point, TrialRecord, number_of, verdict_of

__all__ = ["RECIPE", "Addition", "Point", "SearchRecord", "TrialRecord"]

RECIPE = 0
"""The number of the trial that runs the recipe's default hyperparameters."""


@dataclass
class SearchRecord:
    """A search: its trials, and what is known of all of it.

    What is asked after every event (the winner, the running trials, how many have ended) is kept up to date event by
    event, so that an event takes no longer with 10,000 trials than with one.
    """

    name: str = ""
    """The run's name."""
    num_trials: int = 0
    """Trials that are planned, added ones included."""
    objectives: tuple[Objective, ...] = (EVAL_LOSS,)
    """What is measured: first what the search makes better, then what is shown beside it."""
    workers: int = 0
    """Workers of the last session."""
    gpus: float = 0.0
    """The GPUs that one worker of the last session holds."""
    dashboard: str = ""
    """Where the Ray dashboard of the last session answered, "" where there was none."""
    ladder: dict[str, Any] = field(default_factory=dict)
    """`Plan.places`; empty where the ledger is of an earlier version."""
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    """Every trial that was begun, by number."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the program said of the prepared data and base."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user, oldest first."""
    started: float | None = None
    """Time of the first session's start, in seconds since 1970."""
    updated: float | None = None
    """Time of the last event, in seconds since 1970."""
    finished: bool = False
    """Whether the last session has written its end."""
    settings_digest: str = ""
    """SHA-256 of `resolved.json` as the last session read it."""
    sessions: int = 0
    """Sessions so far: the first one, and each resume."""
    wall_s: float = 0.0
    """Seconds that the sessions took, all together."""
    busy_s: float = 0.0
    """Seconds of `wall_s` in which a trial ran."""
    trial_s: float = 0.0
    """Seconds that trials ran, of all trials together."""
    worker_s: float = 0.0
    """Seconds that workers trained, of all workers together."""
    gpu_s: float = 0.0
    """Seconds that workers held GPUs while they trained, of all GPUs together."""
    held_gpu_s: float = 0.0
    """Seconds that the sessions held GPUs, of all GPUs together: `gpu_s`, and while nothing trained."""
    budget: dict[str, Any] = field(default_factory=dict)
    """`search.budget` of the last session, what is given of it."""
    price_per_gpu_hour: float | None = None
    """`run.price_per_gpu_hour` of the last session."""
    outcome: str = ""
    """How the last session ended: "done", "stopped", "interrupted", "halted" or "failed"; "" while it runs."""
    halt_reason: str = ""
    """Why the last session was halted (`Reason`); "" if it was not."""
    halt_message: str = ""
    """What was wrong, if it was halted."""
    halt_remedy: str = ""
    """What the user can do about it."""
    fits: dict[str, Fit] = field(default_factory=dict)
    """What trials learned about the memory of devices, by the device's name."""
    additions: dict[str, Addition] = field(default_factory=dict)
    """Added points that wait for a worker, by name."""
    paused: str = ""
    """Why no trial trains on; "" while they do."""
    stopped: str = ""
    """Who ended the session before all trials had ended; "" for nobody."""
    spent: str = ""
    """Which budget of the search ended the session, in words; "" if none did."""
    spent_of: str = ""
    """The same by its key in `search.budget`."""
    _session_started: float | None = None
    """Time of the last event, until which `wall_s` is counted; None before the first session."""
    _num_running: int = field(default=0, repr=False, compare=False)
    """How many trials run now."""
    _ranked: list[tuple[bool, float, int]] = field(default_factory=list, repr=False, compare=False)
    """The usable trials as `_rank` gives them, the winner first."""
    _unended: dict[int, TrialRecord] = field(default_factory=dict, repr=False, compare=False)
    """The trials without an ending, by number."""

    @classmethod
    def fold(cls, events: Iterable[Event]) -> SearchRecord:
        """The record of these events, which are all of a search, oldest first."""
        record = cls()
        for event in events:
            record.apply(event)
        return record

    def apply(self, event: Event) -> None:
        """Folds one event into the record. Evaluations and endings of an attempt that was replaced are ignored."""
        if self._session_started is not None and event.event is not Kind.SEARCH:
            self._spend(max(0.0, event.time - self._session_started))
        self.updated = event.time
        match event.event:
            case Kind.SEARCH:
                self._open(event)
            case Kind.PREPARED:
                self.facts = dict(event.details.get("facts", {}))
                self._note(event.details.get("notes", ()))
            case Kind.NOTE:
                self._note([event.details.get("text", "")])
            case Kind.PAUSED:
                self.paused = str(event.details.get("why", "paused"))
            case Kind.RESUMED:
                self.paused = ""
            case Kind.STOPPED:
                self.stopped = str(event.details.get("by", ""))
                self.spent, self.spent_of = str(event.details.get("text", "")), str(event.details.get("budget", ""))
            case Kind.ADDED:
                self._add(event)
            case Kind.FINISHED:
                self.finished, self.paused = True, ""
                self.outcome = str(event.details.get("outcome", ""))
                self.halt_reason = event.reason or ""
                self.halt_message = str(event.details.get("message", ""))
                self.halt_remedy = str(event.details.get("remedy", ""))
            case _ if event.number is not None:
                before = self._runs(event.number)
                self._trial(event)
                self._num_running += self._runs(event.number) - before
        if self._session_started is not None:
            self._session_started = event.time

    def _spend(self, seconds: float) -> None:
        busy = min(self.workers or self._num_running, self._num_running)  # an engine trains several trials
        self.wall_s += seconds
        self.busy_s += seconds if busy else 0.0
        self.trial_s += seconds * self._num_running
        self.worker_s += seconds * busy
        self.gpu_s += seconds * busy * self.gpus
        self.held_gpu_s += seconds * self.workers * self.gpus

    def _open(self, event: Event) -> None:
        details = event.details
        self.name = details.get("name", self.name)
        self.num_trials = details.get("num_trials", self.num_trials)
        self.workers = details.get("workers", self.workers)
        self.gpus = float(details.get("gpus_per_trial") or 0.0)
        self.price_per_gpu_hour = details.get("price_per_gpu_hour")
        self.budget = dict(details.get("budget") or {})
        if told := details.get("objectives"):
            self.objectives = tuple(Objective.from_dict(one) for one in told)
        self.dashboard = details.get("dashboard") or ""
        self.ladder = ladder if isinstance(ladder := details.get("ladder"), dict) else {}
        self.settings_digest = details.get("settings", self.settings_digest)
        self.started = self.started or event.time
        self._session_started = event.time
        self.sessions += 1
        self.finished, self.outcome, self.paused, self.stopped = False, "", "", ""
        self.spent = self.spent_of = ""
        self.halt_reason = self.halt_message = self.halt_remedy = ""
        for trial in self._unended.values():  # a driver that was killed wrote no ending for its running trials
            trial.interrupted = not trial.parked
        self._num_running = 0

    def _add(self, event: Event) -> None:
        details = event.details
        name = str(details.get("name", ""))
        self.additions[name] = Addition(name, dict(event.params or {}), str(details.get("by", "")))
        self.num_trials += 1  # an added trial takes no planned one's place

    def _note(self, texts: Iterable[str]) -> None:
        self.notes += [text for text in texts if text and text not in self.notes]

    def _trial(self, event: Event) -> None:
        number = event.number
        assert number is not None
        if event.event is Kind.STARTED:
            before = self.trials.get(number)
            self.additions.pop(str(event.details.get("addition", "")), None)
            if before is not None:
                self._unrank(before)
            self.trials[number] = self._unended[number] = TrialRecord(
                number=number,
                objective=self.objective,
                compares=None if self.compared_by is self.objective else self.compared_by,
                params=dict(event.params or {}),
                trial=event.trial or "",
                attempt=event.attempt or 1,
                distributions=dict(event.details.get("distributions", {})),
                started=event.time,
                added_by=str(event.details.get("by", "")),
            )
            if before is not None:
                self.trials[number].take_up(before)
            return
        trial = self.trials.get(number)
        if trial is None or trial.has_ended or (event.attempt or 1) != trial.attempt:
            return
        match event.event:
            case Kind.SETUP:
                trial.setup, trial.set_up = dict(event.details), event.time
                if not event.details.get("resumed_step"):
                    trial.begin_anew()
            case Kind.EVALUATION:
                metrics = dict(event.metrics or {})
                trial.points.append(
                    Point(
                        step=event.step or 0,
                        tokens=event.tokens or 0,
                        value=metrics.get(trial.compared_by.name),
                        metrics=metrics,
                        train_loss=number_of(event.details.get("train_loss")),
                        seconds=event.details.get("seconds", 0.0),
                        memory=event.details.get("memory"),
                        resource=event.details.get("resource", event.step or 0),
                    )
                )
                trial.heard = event.time
                trial.adapter = event.details.get("adapter") or trial.adapter
                trial.judged = verdict_of(event.details.get("verdict"))
                trial.to_park = event.details.get("parked") is True
            case Kind.ENDED:
                trial.interrupted = trial.parked = trial.to_park = False
                trial.retry = ""
                trial.status = Status(event.status or Status.FAILED)
                trial.reason = Reason(event.reason or Reason.ERROR)
                trial.message = str(event.details.get("message", ""))
                trial.remedy = str(event.details.get("remedy", ""))
                trial.traceback = str(event.details.get("traceback", ""))
                trial.ended, trial.ended_at = event.time, self.wall_s
                self._unended.pop(number, None)
                if trial.is_usable:
                    insort(self._ranked, _rank(trial))
            case Kind.INTERRUPTED:
                trial.interrupted = True
                trial.ended = event.time
            case Kind.PARKED:
                trial.parked, trial.to_park, trial.interrupted = True, False, False
                trial.ended = event.time
            case Kind.RETRY:
                trial.interrupted = True
                trial.ended = event.time
                trial.retry = str(event.details.get("message", "")) or str(event.reason)
                trial.losses[str(event.reason)] = trial.losses.get(str(event.reason), 0) + 1
                if (fit := event.details.get("fit")) is not None:
                    device = str(event.details.get("device", ""))
                    self.fits[device] = Fit(**fit).within(self.fits.get(device))

    def _runs(self, number: int) -> bool:
        trial = self._unended.get(number)
        return trial is not None and trial.is_running

    def _unrank(self, trial: TrialRecord) -> None:
        place = bisect_left(self._ranked, _rank(trial))
        if place < len(self._ranked) and self._ranked[place] == _rank(trial):
            del self._ranked[place]

    @property
    def objective(self) -> Objective:
        """What the search makes better."""
        return self.objectives[0]

    @property
    def compared_by(self) -> Objective:
        """What trials are compared by while they run."""
        return compared_by(self.objectives)

    @property
    def ended(self) -> list[TrialRecord]:
        """The trials that have an ending."""
        return [t for t in self.trials.values() if t.has_ended]

    @property
    def num_ended(self) -> int:
        """How many trials have an ending."""
        return len(self.trials) - len(self._unended)

    @property
    def unended(self) -> list[TrialRecord]:
        """The trials without an ending: those that run, are parked, or were cut off."""
        return list(self._unended.values())

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that run now."""
        return [t for t in self._unended.values() if t.is_running]

    @property
    def cut_off(self) -> list[TrialRecord]:
        """The trials that a resume runs again."""
        return [t for t in self._unended.values() if t.interrupted]

    @property
    def parked(self) -> list[TrialRecord]:
        """The trials that have no ending and wait, with a saved state, until the scheduler lets them go on."""
        return [t for t in self._unended.values() if t.parked]

    @property
    def is_done(self) -> bool:
        """Whether a resume would have no trial to run: the last session ended with no trial left, or, with fewer than
        planned, because its space was used up."""
        return (
            self.finished
            and not self._unended
            and not self.additions
            and (self.outcome == "done" or (self.outcome == "stopped" and self.num_ended >= self.num_trials))
        )

    @property
    def ranked(self) -> Iterator[TrialRecord]:
        """The usable trials, the winner first: completed ones before those that were stopped early."""
        return (self.trials[number] for _, _, number in self._ranked)

    @property
    def recipe(self) -> TrialRecord | None:
        """The trial of the recipe; None before it has begun."""
        return self.trials.get(RECIPE)

    @property
    def best(self) -> TrialRecord | None:
        """The winner: the best value among completed trials; if none completed, among the other usable ones."""
        return next(self.ranked, None)

    @property
    def leaderboard(self) -> list[TrialRecord]:
        """Every trial, the winner first: the usable ones, then those without an ending, then those with an unusable
        one."""
        others = [t for t in self.trials.values() if not t.is_usable]
        return [*self.ranked, *sorted(others, key=lambda t: (t.has_ended, _best_cost(t), t.number))]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many trials ended, by status and by reason. One that was cut off counts as stopped, by the user or with
        the search, until a resume runs it again. `parked`, beside the statuses, counts the parked ones."""
        stopped = Reason.SEARCH if self.halt_reason else Reason.USER
        reasons = [t.reason or stopped for t in self.trials.values() if t.has_ended or t.interrupted]
        parked = {"parked": len(self.parked)} if self.parked else {}
        return {
            "status": {**Counter(str(reason.status) for reason in reasons), **parked},
            "reason": dict(Counter(str(reason) for reason in reasons)),
        }

    @property
    def tokens(self) -> int:
        """Training tokens spent on all trials."""
        return sum(t.tokens for t in self.trials.values())

    @property
    def budget_share(self) -> float | None:
        """Training tokens spent, over those of the full budgets of all planned trials; in [0, 1].

        A trial without a report counts as the mean of those with one. If a search is done, trials that it never began
        do not count: its space was used up. None before the first report.
        """
        full = [tokens for trial in self.trials.values() if (tokens := trial.full_tokens)]
        if not full:
            return None
        planned = len(self.trials) if self.outcome == "done" else max(self.num_trials, len(self.trials))
        return min(1.0, self.tokens / (sum(full) / len(full) * planned))

    @property
    def price(self) -> float | None:
        """What the GPUs cost that the sessions held, in the currency of `run.price_per_gpu_hour`; None without it."""
        return None if self.price_per_gpu_hour is None else self.held_gpu_s / 3600 * self.price_per_gpu_hour

    @property
    def gain(self) -> float | None:
        """How much better the best value is than the recipe's, as a share of the recipe's (0.053 is 5.3% better)."""
        best, recipe = (trial.best_value if trial else None for trial in (self.best, self.recipe))
        return None if best is None or recipe is None else self.objective.gain(best, recipe)


def _rank(trial: TrialRecord) -> tuple[bool, float, int]:
    """The key by which usable trials are sorted, the winner first."""
    return trial.status is not Status.COMPLETED, _best_cost(trial), trial.number


def _best_cost(trial: TrialRecord) -> float:
    return math.inf if (best := trial.best_value) is None else trial.objective.cost(best)
