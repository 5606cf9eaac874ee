"""Decides which trial runs next, and begins it: first trials that were cut off, then the parked one that the scheduling
algorithm chooses, then those that a person added, then new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.contract import Assignment, Program, Resume
from tuner.driver.attempts import Attempts
from tuner.driver.disk_guard import DiskGuard, StudyOnDisk
from tuner.driver.watchdog import Watchdog
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import Addition, SearchRecord, TrialRecord
from tuner.scheduling.judge import Judge
from tuner.scheduling.rules import Reading
from tuner.watch.naming import Naming
from tuner.worker.config import TrialConfig


@dataclass(frozen=True)
class Terms:
    """The settings that hold for every trial of a search."""

    seed: int
    """The seed in each assignment."""
    evaluate_at: tuple[float, ...]
    """The shares of a trial at which it is evaluated."""
    keep_adapters: int
    """How many of the best trials keep their adapter."""
    seeds: Callable[[int], int] | None = None
    """Where trials differ by their seeds alone: the seed of each, by its number."""
    save_state_at: tuple[float, ...] = ()
    """The shares after which it may be parked."""
    check: Callable[[Mapping[str, Any]], Any] = dict
    """Raises for a drawn point that the program does not take; a user's space function can draw anything."""
    unlike: Callable[[Mapping[str, Any], Mapping[str, Any]], str] = Program.unlike
    """`Program.unlike`."""


@dataclass(frozen=True)
class _Next:
    """The trial that is to begin."""

    number: int
    attempt: int
    params: Mapping[str, Any]
    distributions: Mapping[str, str]
    details: Mapping[str, Any]
    """Further details of its `started` event."""
    resume: Resume | None = None


@dataclass
class Dispatcher:
    """Begins attempts at trials: asks the study, writes `started`, and makes the assignment."""

    folder: RunFolder
    ledger: Ledger
    record: SearchRecord
    study: StudyOnDisk
    judge: Judge
    terms: Terms
    attempts: Attempts
    naming: Naming
    disk: DiskGuard
    watchdog: Watchdog
    _used_up: bool = field(default=False, init=False)
    """Whether the study has no further point, because the space is finite."""

    @property
    def has_more(self) -> bool:
        """Whether there are trials that have not begun: planned ones, unless the space is used up, or added ones."""
        record = self.record
        return len(record.trials) < record.num_trials and (not self._used_up or bool(record.additions))

    def begin(self, trial_id: str) -> dict[str, Any] | None:
        """Begins the next trial: returns the configuration that Ray gives its worker; None where none can begin now.

        Raises whatever the study, the user's space or the disk raises.
        """
        trial = self._next()
        if trial is None:
            return None
        attempt = self.attempts.begin(trial_id, trial.number, trial.attempt, self.record.fits)
        self.ledger.append(
            Kind.STARTED,
            trial=trial_id,
            number=trial.number,
            attempt=trial.attempt,
            params=dict(trial.params),
            details={"distributions": dict(trial.distributions), **trial.details},
        )
        place = self.folder.attempt(trial.number, trial.attempt)
        self.disk.patient(lambda: place.mkdir(parents=True, exist_ok=True))
        assignment = Assignment(
            number=trial.number,
            params=trial.params,
            seed=self.terms.seeds(trial.number) if self.terms.seeds else self.terms.seed,
            evaluate_at=self.terms.evaluate_at,
            folder=str(place),
            attempt=trial.attempt,
            resume=trial.resume,
            fits=attempt.fits,
            save_state_at=self.terms.save_state_at,
        )
        title, log = self.naming.title(trial.number, trial.params), str(self.folder.log(trial.number))
        self.watchdog.begin(trial_id, assignment.folder)
        return {"trial": TrialConfig(assignment, title, log)}

    def _next(self) -> _Next | None:
        cut_off = next(iter(self.record.cut_off), None)
        if cut_off is not None:
            return self._again(cut_off)
        promoted = self._promoted()
        if promoted is not None:
            return self._again(promoted)
        if not self.has_more:
            return None
        # The recipe stays trial 0, whatever was added before it began
        return self._new(next(iter(self.record.additions.values()), None) if self.record.trials else None)

    def _promoted(self) -> TrialRecord | None:
        """The parked trial that goes on now, if there is one."""
        parked = {trial.number: readings(trial) for trial in self.record.parked}
        number = self.judge.promote(parked, self.others_come) if parked else None
        return None if number is None else self.record.trials[number]

    @property
    def others_come(self) -> bool:
        """Whether trials run or are still to begin, with which parked ones may yet be compared."""
        return self.has_more or bool(self.record.running or self.record.cut_off)

    def _again(self, trial: TrialRecord) -> _Next:
        """The next attempt at a trial, which goes on from the newest state that an earlier one saved."""
        folders = tuple(str(self.folder.attempt(trial.number, earlier)) for earlier in range(trial.attempt, 0, -1))
        return _Next(
            trial.number,
            trial.attempt + 1,
            trial.params,
            trial.distributions,
            {"by": trial.added_by} if trial.added_by else {},
            Resume(trial.step, trial.compared_by.best_of(trial.curve), folders),
        )

    def _new(self, added: Addition | None) -> _Next | None:
        """A new trial; None where the study has no further point. added: what a person asked for, if this is that."""
        given = (added.params, added.by) if added else ()
        suggestion = self.study.call(lambda study: study.ask(*given), again=True)
        if suggestion is None:
            self._used_up = True
            return None
        params = dict(suggestion.params)
        self.terms.check(params)
        details = {"by": added.by, "addition": added.name} if added else {}
        return _Next(suggestion.number, 1, params, suggestion.distributions, details)


def readings(trial: TrialRecord) -> list[Reading]:
    """A trial's curve as rules and rungs see it."""
    return [Reading(point.resource, point.value) for point in trial.points]
