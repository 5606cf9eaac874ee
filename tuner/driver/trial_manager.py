"""The trial manager: takes in what happens to an attempt, writes it into the ledger, and then tells the study.

Ray's searcher and scheduler pass everything on to it. Every fact goes into the ledger first, then into the study, so
that a driver that dies between the two has lost nothing: a resume builds the study from the ledger. `dispatch.py`
decides which trial begins next; `attempts.py` holds the state of each attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial, wraps
from typing import Any

from tuner.contract import Evaluation, InputError, Reason, Setup, Verdict
from tuner.disks import is_of_disk
from tuner.driver import retries
from tuner.driver.attempts import Attempt, Attempts, State
from tuner.driver.disk_guard import CHECK_S, DiskGuard, DiskLost, StudyOnDisk
from tuner.driver.dispatch import Dispatcher, Terms, readings
from tuner.driver.ingredients import unlike_the_first
from tuner.driver.periodic import Periodic
from tuner.driver.stopping import Stopping
from tuner.driver.watchdog import Watchdog
from tuner.results.adapters import drop_state, drop_surplus
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import RECIPE, SearchRecord, TrialRecord
from tuner.results.study_attributes import STATE, state_of
from tuner.scheduling.algorithms import Decision
from tuner.scheduling.judge import Judge
from tuner.scheduling.rules import Reading
from tuner.study.study import Study
from tuner.watch.naming import Naming
from tuner.worker.store_sync import request_checkpoint


def _undivided(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a method so that a signal waits for its end and never comes between the ledger and the study."""

    @wraps(method)
    def entry(manager: TrialManager, *arguments: Any, **more: Any) -> Any:
        with manager.stop.undivided():
            return method(manager, *arguments, **more)
        return None

    return entry


class TrialManager:
    """The source of Ray's searcher and the listener of its scheduler.

    Reports of an attempt that has ended or was given up are dropped: see `Attempts.counting`.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        ledger: Ledger,
        record: SearchRecord,
        study: Callable[[], Study],
        judge: Judge,
        terms: Terms,
        naming: Naming,
        disk: DiskGuard,
        watchdog: Watchdog,
        stop: Stopping,
    ) -> None:
        self.stop = stop
        self._folder, self._ledger, self._record = folder, ledger, record
        self._study = StudyOnDisk(study, disk)
        self._judge, self._keep_adapters, self._unlike = judge, terms.keep_adapters, terms.unlike
        self._disk, self._watchdog = disk, watchdog
        self._attempts = Attempts()
        self._dispatch = Dispatcher(
            folder=folder, ledger=ledger, record=record, study=self._study, judge=judge, terms=terms,
            attempts=self._attempts, naming=naming, disk=disk, watchdog=watchdog,
        )  # fmt: skip
        self._streak = retries.Streak()
        self._turns: list[Callable[[], None]] = [Periodic(CHECK_S, disk.tick)]

    @property
    def stopping(self) -> bool:
        """Whether Ray should end the search now."""
        return self.stop.now

    @property
    def _keeps_values(self) -> bool:
        """Whether trials that run are ended as they are, with the value that they have: after a person's request, and
        where a budget is spent before any trial has one. Else they are cut off, and a resume goes on with them."""
        record = self._record
        return bool(record.stopped) and not (record.spent and record.best)

    # Source

    @property
    def complete(self) -> bool:
        """Whether every trial has its ending."""
        return self._record.num_ended >= self._record.num_trials

    @_undivided
    def write_pending_endings(self) -> None:
        """Ends the trials whose ending an earlier driver had decided and not written when it died, and parks those that
        it had decided to park."""
        for trial in self._record.cut_off:
            if trial.judged is not None:
                self._end(trial.number, trial.judged)
            elif trial.to_park:
                self._park(trial.number)

    @property
    def over(self) -> bool:
        """Whether no trial will be suggested any more: not while one runs, which may be lost and tried again, nor in a
        pause; another may also be added meanwhile."""
        waits = self._record.num_ended < len(self._record.trials)
        return self.stopping or not (waits or self.paused or self._dispatch.has_more)

    @_undivided
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of the next trial; None where there is none now, or when `over` never again."""
        self.tick()  # while no trial runs, Ray's loop only calls this method
        if self.stopping or self.paused:
            return None
        try:
            others_come = self._dispatch.others_come
            begun = self._dispatch.begin(trial_id)
            if begun is None and not others_come:
                self._conclude()
            return begun
        except (OSError, DiskLost) as error:
            self.stop.fail_with(self._disk.lost(error) or error)
            return None
        except Exception as error:  # a user's space function, or the study's disk: end the search, then say so
            known = isinstance(error, InputError)
            self.stop.fail_with(error if known else _no_suggestion(len(self._record.trials), error))
            return None

    @_undivided
    def lost(self, trial_id: str, error: bool) -> None:
        """Notes that Ray dropped a trial. Does nothing where the attempt is over."""
        attempt = self._attempts.counting(trial_id)
        if attempt is None:
            return
        if self._keeps_values:
            self._stop(attempt.number)
        elif self.stopping:
            self._interrupt(attempt.number)
        else:
            self.ended(trial_id, Verdict(Reason.INFRASTRUCTURE, "Ray dropped the trial"))

    @_undivided
    def close(self) -> None:
        """Ends the session. A trial without an ending is noted as interrupted; after a request to stop it is ended."""
        stopped = self._keeps_values
        end = self._stop if stopped else self._interrupt
        waiting = [*(trial for trial in self._record.cut_off if trial.retry), *self._record.parked] if stopped else []
        for trial in [*self._record.running, *waiting]:
            end(trial.number)
        for trial in [*self._record.cut_off, *self._record.parked]:
            self._study.call(partial(Study.abandon, number=trial.number), again=True)
        how = self.stop.how(more=bool(self._record.cut_off or self._record.parked or self._dispatch.has_more))
        self._study.attempt(partial(Study.set_attribute, name=STATE, value=state_of(self._record, how)))
        drop_surplus(self._folder, self._record, self._keep_adapters)

    def tick(self) -> None:
        """Makes the calls that are due; called several times a second from Ray's loop."""
        with self.stop.on_disk():
            for turn in self._turns:
                turn()

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Adds a call that `tick` makes every `seconds` seconds."""
        self._turns.append(Periodic(seconds, call))

    def hanging(self, running: Callable[[], Iterable[str]]) -> list[str]:
        """The running trials that hang. The caller is to kill them; their verdict is noted for when Ray reports
        that."""
        killed = []
        for trial_id, silence in self._watchdog.hanging(running):
            attempt = self._attempts.counting(trial_id)
            if attempt is None:
                continue
            message = f"no progress for {silence:.0f} s, killed (run.hang_timeout: {self._watchdog.timeout:.0f} s)"
            attempt.move(State.HUNG)
            attempt.verdict = Verdict(Reason.HUNG, message, "look at its log, or set run.hang_timeout")
            self._watchdog.end(trial_id)
            killed.append(trial_id)
        return killed

    # Listener

    def number(self, trial_id: str) -> int:
        return self._attempts[trial_id].number

    def known(self, trial_id: str) -> tuple[int, list[Reading]]:
        trial = self._record.trials[self._attempts[trial_id].number]
        return trial.step, readings(trial)

    @_undivided
    def set_up(self, trial_id: str, setup: Setup) -> None:
        attempt = self._attempts.counting(trial_id)
        if attempt is None:
            return
        self._watchdog.heard(trial_id)
        details = {**asdict(setup), **setup.details}
        del details["details"]
        self._append(Kind.SETUP, attempt, details={key: value for key, value in details.items() if value != ""})
        other = unlike_the_first(self._record, attempt.number, self._unlike)
        for note in (setup.note, "" if other in self._record.notes else other):
            if note:
                self._ledger.append(Kind.NOTE, details={"text": note})

    def repeated(self, trial_id: str) -> None:
        self._watchdog.heard(trial_id)

    @_undivided
    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, decision: Decision) -> None:
        attempt = self._attempts.counting(trial_id)
        if attempt is None:
            return
        self._watchdog.heard(trial_id)
        self._disk.require_here()  # in a moved folder the adapter would not be found again
        number = attempt.number
        trial = self._record.trials[number]
        objective, metrics = self._record.objective, evaluation.metrics
        measured, value = metrics.get(objective.name), metrics.get(trial.compared_by.name)
        self._append(
            Kind.EVALUATION, attempt, step=evaluation.step, tokens=evaluation.tokens, metrics=metrics,
            best={objective.name: objective.best_of((trial.best_value, measured))},
            details={
                "resource": resource,
                "train_loss": evaluation.train_loss,
                "seconds": round(evaluation.seconds, 3),
                "memory": evaluation.memory,
                "adapter": self._folder.from_here(evaluation.adapter),
                **({"verdict": _words(decision.verdict)} if decision.verdict else {}),
                **({"parked": True} if decision.pauses else {}),
            },
        )  # fmt: skip
        self._study.call(lambda study: study.report(number, resource, trial.intermediate(value)))
        if decision.verdict is not None:
            self._end(number, decision.verdict)
        elif decision.pauses:
            self._park(number)

    @_undivided
    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None:
        attempt = self._attempts.counting(trial_id)
        if attempt is None:
            return
        trial, verdict = self._record.trials[attempt.number], attempt.verdict or verdict
        of_disk = is_of_disk(verdict)
        if of_disk and not self.stopping:
            with self.stop.on_disk():
                self._disk.require_writable()
                self._disk.tick()  # at once: within a second the trial would be tried again, and lost, three times
        retry = retries.again(verdict, trial, attempt.fits.get(verdict.device))
        lost = verdict.reason is Reason.INFRASTRUCTURE
        if self._keeps_values and (retry or lost):
            self._stop(trial.number)
        elif self.stopping and lost:
            self._interrupt(trial.number)  # its worker may have been ended by the same signal
        elif retry:
            self._retry(attempt, State.OVER, retry.reason, retry.message, **retry.details)
        elif of_disk:  # the disk is at fault, and not the trial
            self._interrupt(trial.number)
            self.stop.fail_with(self._disk.given_up(trial.number, verdict))
        else:
            self._end(trial.number, verdict, traceback)
            if verdict.reason.halts_search:
                self.stop.halt_with(verdict)

    def spares(self, trial_id: str) -> bool:
        """Trial 0 runs its full budget: an unfinished recipe would make the winner look better than it is."""
        return self._attempts[trial_id].number == RECIPE

    def was_stopped(self, trial_id: str) -> bool:
        """Whether the trial has its ending and Ray's scheduler did not hear of it in a report."""
        return self._attempts.state(trial_id) is State.STOPPED

    # Asked of a running search

    @property
    def paused(self) -> bool:
        """Whether trials wait at their next report, and none starts."""
        return bool(self._record.paused)

    @_undivided
    def stop_trial(self, number: int) -> None:
        """Ends one running or parked trial; the scheduler takes a running one from Ray at its next turn."""
        self._end(number, Verdict(Reason.USER), state=State.STOPPED)

    # Moved from a node that is about to go

    def running_as(self, number: int, attempt: int) -> str | None:
        """Ray's id of an attempt at a trial, if it is the one that counts."""
        found = self._attempts.of(number)
        return found.trial_id if found and found.attempt == attempt else None

    def drain(self, trial_id: str) -> None:
        """Asks a trial whose node is about to go to save its state with its next report, and gives it up at that."""
        if self._attempts.state(trial_id) is not State.RUNNING:
            return
        attempt = self._attempts[trial_id]
        attempt.move(State.DRAINING)
        with suppress(OSError):  # without the request it goes on from its last state
            request_checkpoint(self._folder.attempt(attempt.number, attempt.attempt))

    def drains(self, trial_id: str) -> bool:
        if self._attempts.state(trial_id) is State.DRAINING:
            self.drain_now(trial_id)
        return self._attempts.state(trial_id) in (State.DRAINING, State.DRAINED)

    @_undivided
    def drain_now(self, trial_id: str) -> None:
        """Gives the attempt up: the next one begins on another node. It does not count as a failure (`retries`)."""
        attempt = self._attempts.counting(trial_id)
        if attempt is not None and not self.stopping:
            self._retry(attempt, State.DRAINED, "drained", "its node is about to go")

    # Written into the ledger, then told to the study

    def _interrupt(self, number: int) -> None:
        trial = self._record.trials[number]
        self._ledger.append(Kind.INTERRUPTED, trial=trial.trial, number=number, attempt=trial.attempt)
        self._over(number)
        self._study.call(lambda study: study.abandon(number), again=True)

    def _stop(self, number: int) -> None:
        """Ends a trial of a stopped search. A recipe without a value is left to a resume, which compares with it."""
        if number == RECIPE and self._record.trials[number].best_value is None:
            self._interrupt(number)
        else:
            self._end(number, Verdict(Reason.USER, self._record.spent))

    def _park(self, number: int) -> None:
        """Ends the attempt at a trial, which keeps its state and waits. To the study the trial still runs."""
        trial = self._record.trials[number]
        self._watchdog.end(trial.trial)
        self._close_attempt(Kind.PARKED, trial)
        self._over(number)

    def _conclude(self) -> None:
        """Ends the parked trials: none of them goes on, and no other trial is left to compare them with."""
        for trial in self._record.parked:
            self._end(trial.number, self._judge.conclude(trial.number, readings(trial)))

    def _retry(self, attempt: Attempt, state: State, reason: str, message: str, **more: Any) -> None:
        """Ends an attempt; the trial goes on in the next one. To the study the trial still runs."""
        self._watchdog.end(attempt.trial_id)
        self._append(Kind.RETRY, attempt, reason=reason, details={"message": message, **more})
        attempt.move(state)

    def _append(self, kind: Kind, attempt: Attempt, **values: Any) -> None:
        self._ledger.append(kind, trial=attempt.trial_id, number=attempt.number, attempt=attempt.attempt, **values)

    def _close_attempt(self, kind: Kind, trial: TrialRecord, **values: Any) -> None:
        """Writes the last line of an attempt, with how far the trial has come."""
        self._ledger.append(
            kind, trial=trial.trial, number=trial.number, attempt=trial.attempt, step=trial.step, tokens=trial.tokens,
            best={trial.objective.name: trial.best_value}, **values,
        )  # fmt: skip

    def _over(self, number: int, state: State = State.OVER) -> None:
        """Notes that the attempt at a trial, if this session has made one, is over."""
        if (attempt := self._attempts.of(number)) is not None:
            attempt.move(state)

    def _end(self, number: int, verdict: Verdict, traceback: str = "", state: State = State.OVER) -> None:
        trial = self._record.trials[number]
        self._watchdog.end(trial.trial)
        details = {**_words(verdict), "traceback": traceback}
        del details["reason"]
        told = {key: value for key, value in details.items() if value}
        reason, status = str(verdict.reason), str(verdict.status)
        self._close_attempt(Kind.ENDED, trial, status=status, reason=reason, details=told)
        self._over(number, state)
        self._study.call(lambda study: study.tell(number, verdict, trial.best_value))
        drop_state(self._folder, number)
        drop_surplus(self._folder, self._record, self._keep_adapters, ended=number)
        self.stop.halt_with(self._streak.ended(number, verdict))


def _words(verdict: Verdict) -> dict[str, str]:
    return {"reason": str(verdict.reason), "message": verdict.message, "remedy": verdict.remedy}


def _no_suggestion(number: int, error: Exception) -> InputError:
    return InputError(
        f"drawing trial {number} failed: {type(error).__name__}: {error}",
        where="search.space",
        expected="a point that the program takes",
        remedy="mend the space and start a new search; `show` and `export` read what has run",
    )
