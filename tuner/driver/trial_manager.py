"""The driver's manager: what is asked of the study and written into the ledger while Ray runs.

Ray's searcher and scheduler are thin; both end here. Every fact goes into the ledger first, then into the study, so
that a driver that dies between the two has lost nothing: a resume builds the study from the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial, wraps
from typing import Any

from tuner.contract import Assignment, Evaluation, Fit, InputError, Reason, Resume, Setup, Verdict
from tuner.disks import is_of_disk
from tuner.driver import retries
from tuner.driver.disk_guard import DiskGuard, DiskLost, StudyOnDisk
from tuner.driver.ingredients import other_precision
from tuner.driver.watchdog import Watchdog
from tuner.results.adapters import drop_state, drop_surplus
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import RECIPE, SearchRecord, TrialRecord
from tuner.scheduling.rules import Reading
from tuner.study.study import Study
from tuner.watch.dashboard_rows import DashboardRows
from tuner.watch.naming import Naming
from tuner.worker.config import TrialConfig
from tuner.worker.store_sync import ask_to_leave


@dataclass(frozen=True)
class Terms:
    """What holds for every trial of a search."""

    seed: int
    evaluate_at: tuple[float, ...]
    keep_adapters: int
    check: Callable[[Mapping[str, Any]], Any] = dict
    """Raises where a drawn point is none that the program takes; a function of the user's can draw anything."""


def _undivided(method: Callable[..., Any]) -> Callable[..., Any]:
    """A second Ctrl-C comes before or after it, and never between the ledger and the study. A disk that fails ends the
    search, and no trial."""

    @wraps(method)
    def entry(manager: TrialManager, *arguments: Any, **more: Any) -> Any:
        with manager._whole(), manager._on_disk():
            return method(manager, *arguments, **more)
        return None

    return entry


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a trial, by Ray's id. fits: what it was told of devices' memory."""

    number: int
    attempt: int
    fits: Mapping[str, Fit]


class TrialManager:
    """Source of Ray's searcher and listener of its scheduler.

    What comes from an attempt that has been replaced counts for nothing: every entry asks `_current` first.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        ledger: Ledger,
        record: SearchRecord,
        study: Callable[[], Study],
        terms: Terms,
        naming: Naming,
        dashboard: DashboardRows,
        disk: DiskGuard,
        watchdog: Watchdog,
    ) -> None:
        self._folder, self._ledger, self._record = folder, ledger, record
        self._study = StudyOnDisk(study, disk)
        self._terms, self._naming, self._dashboard = terms, naming, dashboard
        self._disk, self._watchdog = disk, watchdog
        self._attempts: dict[str, _Attempt] = {}
        self._streak = retries.Streak()
        self._used_up = False
        self._killed: dict[str, Verdict] = {}
        self._stop_requested: Callable[[], bool] = lambda: False
        self._whole: Callable[[], AbstractContextManager[None]] = nullcontext
        self._turns: list[Callable[[], None]] = [dashboard.tick, disk.tick]
        self._stopped: set[str] = set()
        self._leaving: set[str] = set()
        self.halt: Verdict | None = None
        self.failure: Exception | None = None

    # Source

    @property
    def complete(self) -> bool:
        """Whether every trial has its ending."""
        return self._record.num_ended >= self._record.num_trials

    @_undivided
    def settle(self) -> None:
        """Writes the endings that a driver had judged and died before it could write."""
        for trial in self._record.cut_off:
            if trial.judged is not None:
                self._end(trial.number, trial.judged)

    @property
    def over(self) -> bool:
        """Whether no trial will be suggested any more. One that runs may yet be lost and have to be tried again, and
        while it runs, or in a pause, another may be added."""
        waits = self._record.num_ended < len(self._record.trials)
        return self.stopping or not (waits or self.paused or self._has_more)

    @property
    def _has_more(self) -> bool:
        """Whether there are trials that have not begun: planned ones, unless a grid is used up, or added ones."""
        record = self._record
        return len(record.trials) < record.num_trials and (not self._used_up or bool(record.additions))

    @_undivided
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial: first those that were cut off, as they were, then those that were added, then new ones. None:
        not now, or, when `over`, never."""
        self.tick()  # while no trial runs, Ray's loop stands still in here
        if self.stopping or self.paused:
            return None
        try:
            return self._begin(trial_id)
        except (OSError, DiskLost) as error:
            self.give_up(self._disk.lost(error) or error)
            return None
        except Exception as error:  # a user's space function, or the study's disk: end the search, then say so
            self.failure = error if isinstance(error, InputError) else _no_suggestion(len(self._record.trials), error)
            return None

    @_undivided
    def lost(self, trial_id: str, error: bool) -> None:
        trial = self._current(trial_id)
        if trial is None or not trial.is_running:
            return
        if self._record.stopped:
            self._end(trial.number, Verdict(Reason.USER))
        elif self.stopping:
            self._interrupt(trial.number)
        else:
            self.ended(trial_id, Verdict(Reason.INFRASTRUCTURE, "Ray dropped the trial"))

    @_undivided
    def close(self) -> None:
        """Ray is done: whatever it left without an ending was cut off, and a resume goes on with it."""
        waiting = [trial for trial in self._record.cut_off if trial.retry and self._record.stopped]
        for trial in [*self._record.running, *waiting]:
            if self._record.stopped:
                self._end(trial.number, Verdict(Reason.USER))
            else:
                self._interrupt(trial.number)
        for trial in self._record.cut_off:
            self._study.call(partial(Study.abandon, number=trial.number), again=True)
        drop_surplus(self._folder, self._record, self._terms.keep_adapters)
        self._dashboard.clear()

    def tick(self) -> None:
        """A turn in Ray's loop, several times a second."""
        with self._on_disk():
            for turn in self._turns:
                turn()

    def every_turn(self, turn: Callable[[], None]) -> None:
        """Calls `turn` at each tick."""
        self._turns.append(turn)

    def hanging(self, running: Callable[[], Iterable[str]]) -> list[str]:
        """Those of the trials that Ray runs that show no progress: to be killed, which their end then says."""
        found = [(trial_id, silence) for trial_id, silence in self._watchdog.hanging(running)]
        for trial_id, silence in found:
            message = f"no progress for {silence:.0f} s, killed (run.hang_timeout: {self._watchdog.timeout:.0f} s)"
            self._killed[trial_id] = Verdict(Reason.HUNG, message, "look at its log, or set run.hang_timeout")
            self._watchdog.end(trial_id)
        return [trial_id for trial_id, _ in found]

    # Listener

    def key(self, trial_id: str) -> str:
        return str(self._attempts[trial_id].number)

    def known(self, trial_id: str) -> tuple[int, list[Reading]]:
        trial = self._record.trials[self._attempts[trial_id].number]
        return trial.step, readings(trial)

    @_undivided
    def set_up(self, trial_id: str, setup: Setup) -> None:
        if self._current(trial_id) is None:
            return
        self._watchdog.heard(trial_id)
        details = {**asdict(setup), **setup.details}
        del details["details"]
        self._append(Kind.SETUP, trial_id, details={key: value for key, value in details.items() if value != ""})
        self._dashboard.set_up(self._attempts[trial_id].number)
        other = other_precision(self._record, self._attempts[trial_id].number)
        for note in (setup.note, "" if other in self._record.notes else other):
            if note:
                self._ledger.append(Kind.NOTE, details={"text": note})

    def repeated(self, trial_id: str) -> None:
        self._watchdog.heard(trial_id)

    @_undivided
    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, verdict: Verdict | None) -> None:
        trial = self._current(trial_id)
        if trial is None:
            return
        self._watchdog.heard(trial_id)
        self._disk.require_here()  # else the adapter lies where the folder was, and nobody will find it
        number = trial.number
        losses = [v for v in (trial.best_eval_loss, evaluation.eval_loss) if v is not None and math.isfinite(v)]
        self._append(
            Kind.EVALUATION,
            trial_id,
            step=evaluation.step,
            tokens=evaluation.tokens,
            eval_loss=evaluation.eval_loss,
            best_eval_loss=min(losses, default=None),
            details={
                "resource": resource,
                "train_loss": evaluation.train_loss,
                "seconds": round(evaluation.seconds, 3),
                "memory": evaluation.memory,
                "adapter": self._folder.from_here(evaluation.adapter),
                **({"verdict": _words(verdict)} if verdict else {}),
            },
        )
        loss = "no loss" if evaluation.eval_loss is None else f"{evaluation.eval_loss:.4g}"
        self._dashboard.report(number, f"step {evaluation.step}/{evaluation.max_steps} · {loss}")
        self._study.call(lambda study: study.report(number, resource, evaluation.eval_loss))
        if verdict is not None:
            self._end(number, verdict)

    @_undivided
    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None:
        trial = self._current(trial_id)
        if trial is None or not trial.is_running:
            return
        verdict = self._killed.pop(trial_id, verdict)
        of_disk = is_of_disk(verdict)
        if of_disk and not self.stopping:
            with self._on_disk():
                self._disk.require_writable()
        given = self._attempts[trial_id].fits.get(verdict.device)
        message = retries.again(verdict, trial, given)
        lost = verdict.reason is Reason.INFRASTRUCTURE
        if self._record.stopped and (message or lost):
            self._end(trial.number, Verdict(Reason.USER))
        elif self.stopping and lost:
            self._interrupt(trial.number)  # its worker may have been ended by the same signal
        elif message:
            fit = {"device": verdict.device, "fit": asdict(verdict.fit)} if verdict.fit is not None else {}
            self._retry(trial_id, str(verdict.reason), message, **fit)
        elif of_disk:  # whatever becomes of the disk, the trial is to blame for nothing
            self._interrupt(trial.number)
            self.give_up(self._disk.given_up(trial.number, verdict))
        else:
            self._end(trial.number, verdict, traceback)
            if verdict.reason.halts_search:
                self.halt = self.halt or verdict

    def spares(self, trial_id: str) -> bool:
        """Trial 0 runs its whole budget: an unfinished recipe would make the winner look better than it is."""
        return self._attempts[trial_id].number == RECIPE

    def was_stopped(self, trial_id: str) -> bool:
        """Whether the trial has its ending and Ray's scheduler did not hear of it in a report."""
        return trial_id in self._stopped

    # Asked of a running search

    @property
    def paused(self) -> bool:
        """Whether trials wait at their next report, and none starts."""
        return bool(self._record.paused)

    @_undivided
    def stop_trial(self, number: int) -> None:
        """Ends one running trial; the scheduler takes it from Ray at its next turn."""
        self._stopped.add(self._record.trials[number].trial)
        self._end(number, Verdict(Reason.USER))

    # Leaving a node

    def running_as(self, number: int, attempt: int) -> str | None:
        """Ray's id of an attempt at a trial, if it is the one that runs."""
        trial = self._record.trials.get(number)
        return trial.trial if trial and trial.is_running and trial.attempt == attempt else None

    def leave(self, trial_id: str) -> None:
        """The trial's node is about to go: it keeps a state with its next report, and leaves with that."""
        known = self._attempts.get(trial_id)
        if known is None or trial_id in self._leaving or self._current(trial_id) is None:
            return
        self._leaving.add(trial_id)
        with suppress(OSError):  # else it goes on from the state that it has
            ask_to_leave(self._folder.attempt(known.number, known.attempt))

    def leaves(self, trial_id: str) -> bool:
        if trial_id in self._leaving:
            self.leave_now(trial_id)
        return trial_id in self._leaving

    @_undivided
    def leave_now(self, trial_id: str) -> None:
        """Gives the attempt up: the next one begins on another node. It counts as no loss: `retries` has no say."""
        self._leaving.add(trial_id)
        trial = self._current(trial_id)
        if trial is not None and trial.is_running and not self.stopping:
            self._retry(trial_id, "drained", "its node is about to go")

    # Stopping

    def give_up(self, error: Exception) -> None:
        """Ends the search with an error that no trial is to blame for."""
        self.failure = self.failure or error

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Where the disk of the run fails in here, the search ends, and a resume goes on from what is written."""
        try:
            yield
        except (OSError, DiskLost) as error:
            lost = self._disk.lost(error)
            if lost is None:
                raise
            self.give_up(lost)

    def stop_when(self, requested: Callable[[], bool], whole: Callable[[], AbstractContextManager[None]]) -> None:
        """Consults `requested` (a signal, say) beside the manager' own reasons to stop. whole: what is entered where a
        signal must not come between."""
        self._stop_requested, self._whole = requested, whole

    @property
    def stopping(self) -> bool:
        """Whether Ray should end the search now."""
        asked = self._stop_requested() or bool(self._record.stopped)
        return asked or self.halt is not None or self.failure is not None

    def _begin(self, trial_id: str) -> dict[str, Any] | None:
        record, more, resume = self._record, dict[str, Any](), None
        cut_off = next(iter(record.cut_off), None)
        # The recipe stays trial 0, whatever was added before it began.
        added = next(iter(record.additions.values()), None) if record.trials else None
        if cut_off is not None:
            number, attempt, params = cut_off.number, cut_off.attempt + 1, cut_off.params
            distributions: Mapping[str, str] = cut_off.distributions
            more = {"by": cut_off.added_by} if cut_off.added_by else {}
            folders = tuple(str(self._folder.attempt(number, earlier)) for earlier in range(cut_off.attempt, 0, -1))
            resume = Resume(cut_off.step, cut_off.best_eval_loss, folders)
        elif self._has_more:
            given = (added.params, added.by) if added else ()
            suggestion = self._study.call(lambda study: study.ask(*given), again=True)
            if suggestion is None:
                self._used_up = True
                return None
            number, attempt, params = suggestion.number, 1, dict(suggestion.params)
            distributions = suggestion.distributions
            more = {"by": added.by, "addition": added.name} if added else {}
            self._terms.check(params)
        else:
            return None
        self._attempts[trial_id] = _Attempt(number, attempt, dict(self._record.fits))
        self._ledger.append(
            Kind.STARTED,
            trial=trial_id,
            number=number,
            attempt=attempt,
            params=params,
            details={"distributions": dict(distributions), **more},
        )
        place = self._folder.attempt(number, attempt)
        self._disk.patient(lambda: place.mkdir(parents=True, exist_ok=True))
        assignment = Assignment(
            number=number,
            params=params,
            seed=self._terms.seed,
            evaluate_at=self._terms.evaluate_at,
            folder=str(place),
            attempt=attempt,
            resume=resume,
            fits=self._attempts[trial_id].fits,
        )
        title, log = self._naming.title(number, params), str(self._folder.log(number))
        self._dashboard.begin(number, title, log)
        self._watchdog.begin(trial_id, assignment.folder)
        return {"trial": TrialConfig(assignment, title, log)}

    def _current(self, trial_id: str) -> TrialRecord | None:
        """The trial, if this is the attempt at it that counts."""
        known = self._attempts.get(trial_id)
        trial = self._record.trials.get(known.number) if known else None
        return trial if known and trial and trial.attempt == known.attempt else None

    def _interrupt(self, number: int) -> None:
        self._dashboard.end(number)
        trial = self._record.trials[number]
        self._ledger.append(Kind.INTERRUPTED, trial=trial.trial, number=number, attempt=trial.attempt)
        self._study.call(lambda study: study.abandon(number), again=True)

    def _retry(self, trial_id: str, reason: str, message: str, **more: Any) -> None:
        """Ends an attempt; the trial itself goes on in the next one. The study hears nothing: it runs."""
        self._dashboard.end(self._attempts[trial_id].number)
        self._watchdog.end(trial_id)
        self._append(Kind.RETRY, trial_id, reason=reason, details={"message": message, **more})

    def _append(self, kind: Kind, trial_id: str, **values: Any) -> None:
        known = self._attempts[trial_id]
        self._ledger.append(kind, trial=trial_id, number=known.number, attempt=known.attempt, **values)

    def _end(self, number: int, verdict: Verdict, traceback: str = "") -> None:
        self._dashboard.end(number)
        trial = self._record.trials[number]
        self._watchdog.end(trial.trial)
        details = {**_words(verdict), "traceback": traceback}
        del details["reason"]
        self._ledger.append(
            Kind.ENDED,
            trial=trial.trial,
            number=number,
            attempt=trial.attempt,
            step=trial.step,
            tokens=trial.tokens,
            best_eval_loss=trial.best_eval_loss,
            status=str(verdict.status),
            reason=str(verdict.reason),
            details={key: value for key, value in details.items() if value},
        )
        self._study.call(lambda study: study.tell(number, verdict, trial.best_eval_loss))
        drop_state(self._folder, number)
        drop_surplus(self._folder, self._record, self._terms.keep_adapters, ended=number)
        self.halt = self.halt or self._streak.ended(number, verdict)


def readings(trial: TrialRecord) -> list[Reading]:
    """A trial's curve as rules and rungs see it."""
    return [Reading(point.resource, point.eval_loss) for point in trial.points]


def _words(verdict: Verdict) -> dict[str, str]:
    return {"reason": str(verdict.reason), "message": verdict.message, "remedy": verdict.remedy}


def _no_suggestion(number: int, error: Exception) -> InputError:
    return InputError(
        f"drawing trial {number} failed: {type(error).__name__}: {error}",
        where="search.space",
        expected="a point that the program takes",
        remedy="mend the space and start a new search; `show` and `export` read what has run",
    )
