"""The driver's books: what is asked of the study and written into the ledger while Ray runs.

Ray's searcher and scheduler are thin; both end here. Every fact goes into the ledger first, then into the study, so
that a driver that dies between the two has lost nothing: a resume builds the study from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuner.contract import Assignment, Evaluation, InputError, Reason, Setup, Verdict
from tuner.execution.disk import Room
from tuner.execution.plaques import Plaques
from tuner.execution.worker import Naming, TrialConfig
from tuner.results.adapters import drop_surplus
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import RECIPE, SearchRecord
from tuner.room import is_full
from tuner.study.study import Study


@dataclass(frozen=True)
class Terms:
    """What holds for every trial of a search."""

    num_trials: int
    seed: int
    evaluate_at: tuple[float, ...]
    keep_adapters: int
    check: Callable[[Mapping[str, Any]], Any] = dict
    """Raises where a drawn point is none that the program takes; a function of the user's can draw anything."""


class Books:
    """Source of Ray's searcher and listener of its scheduler."""

    def __init__(
        self,
        *,
        folder: RunFolder,
        ledger: Ledger,
        record: SearchRecord,
        study: Callable[[], Study],
        terms: Terms,
        naming: Naming,
        plaques: Plaques,
        room: Room,
    ) -> None:
        self._folder, self._ledger, self._record, self._make_study = folder, ledger, record, study
        self._study = study()
        self._terms, self._naming, self._plaques, self._room = terms, naming, plaques, room
        self._numbers: dict[str, int] = {}
        self._stop_requested: Callable[[], bool] = lambda: False
        self.halt: Verdict | None = None
        self.failure: Exception | None = None

    # Source

    @property
    def complete(self) -> bool:
        """Whether every trial has its ending."""
        return len(self._record.ended) >= self._terms.num_trials

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial: first those that were cut off, with their number and parameters, then new ones."""
        if self.stopping:
            return None
        try:
            return self._begin(trial_id)
        except Exception as error:  # a user's space function, or the study's disk: end the search, then say so
            self.failure = error if isinstance(error, InputError) else _no_suggestion(len(self._record.trials), error)
            return None

    def lost(self, trial_id: str, error: bool) -> None:
        number = self._numbers.get(trial_id)
        if number is None or not self._record.trials[number].is_running:
            return
        if self.stopping:
            self._interrupt(number)
        else:
            self._end(number, Verdict(Reason.INFRASTRUCTURE, "Ray dropped the trial"))

    def close(self) -> None:
        """Ray is done: whatever it left without an ending was cut off, and a resume runs it again."""
        for trial in self._record.running:
            self._interrupt(trial.number)
        for trial in self._record.cut_off:
            self._in_study(partial(Study.abandon, number=trial.number), again=True)
        drop_surplus(self._folder, self._record, self._terms.keep_adapters)
        self._plaques.clear()

    def tick(self) -> None:
        """A turn in Ray's loop, several times a second."""
        self._plaques.tick()
        self._room.tick()

    # Listener

    def set_up(self, trial_id: str, setup: Setup) -> None:
        details = {**asdict(setup), **setup.details}
        del details["details"]
        self._append(Kind.SETUP, trial_id, details=details)

    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, verdict: Verdict | None) -> None:
        number = self._numbers[trial_id]
        trial = self._record.trials[number]
        losses = [loss for loss in (trial.best_eval_loss, evaluation.eval_loss) if loss is not None and loss == loss]
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
                "adapter": self._within(evaluation.adapter),
            },
        )
        self._in_study(lambda study: study.report(number, resource, evaluation.eval_loss))
        if verdict is not None:
            self._end(number, verdict)

    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None:
        number = self._numbers[trial_id]
        if not self._record.trials[number].has_ended:
            self._end(number, verdict, traceback)
        if verdict.reason.halts_search:
            self.halt = self.halt or verdict

    def spares(self, trial_id: str) -> bool:
        """Trial 0 runs its whole budget: an unfinished recipe would make the winner look better than it is."""
        return self._numbers.get(trial_id) == RECIPE

    # Stopping

    def stop_when(self, requested: Callable[[], bool]) -> None:
        """Consults `requested` (a signal, say) beside the books' own reasons to stop."""
        self._stop_requested = requested

    @property
    def stopping(self) -> bool:
        """Whether Ray should end the search now."""
        return self.halt is not None or self.failure is not None or self._stop_requested()

    def _begin(self, trial_id: str) -> dict[str, Any] | None:
        cut_off = next(iter(self._record.cut_off), None)
        if cut_off is not None:
            number, attempt, params = cut_off.number, cut_off.attempt + 1, cut_off.params
            distributions: Mapping[str, str] = cut_off.distributions
        elif len(self._record.trials) < self._terms.num_trials:
            suggestion = self._in_study(lambda study: study.ask(), again=True)
            if suggestion is None:
                return None
            number, attempt, params = suggestion.number, 1, dict(suggestion.params)
            distributions = suggestion.distributions
            self._terms.check(params)
        else:
            return None
        self._numbers[trial_id] = number
        self._ledger.append(
            Kind.STARTED,
            trial=trial_id,
            number=number,
            attempt=attempt,
            params=params,
            details={"distributions": dict(distributions)},
        )
        place = self._folder.trial(number)
        self._make_folder(place)
        assignment = Assignment(
            number=number,
            params=params,
            seed=self._terms.seed,
            evaluate_at=self._terms.evaluate_at,
            folder=str(place),
            attempt=attempt,
        )
        title = self._naming.title(number, params)
        self._plaques.begin(number, title)
        return {"trial": TrialConfig(assignment, title, str(self._folder.log(number)))}

    def _within(self, adapter: str | None) -> str | None:
        """An adapter's place, from the run folder on, so that the folder may be moved."""
        path = Path(adapter) if adapter else None
        return str(path.relative_to(self._folder.path)) if path and path.is_relative_to(self._folder.path) else adapter

    def _interrupt(self, number: int) -> None:
        self._plaques.end(number)
        trial = self._record.trials[number]
        self._ledger.append(Kind.INTERRUPTED, trial=trial.trial, number=number, attempt=trial.attempt)
        self._in_study(lambda study: study.abandon(number), again=True)

    def _make_folder(self, place: Path) -> None:
        while True:
            try:
                return place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if not is_full(error):
                    raise
                self._room.full(error)

    def _in_study(self, call: Callable[[Study], Any], again: bool = False) -> Any:
        """Calls the study. Where its disk is full, it is made anew from the ledger once there is room: that has every
        fact already, so only what is `again` asked for is asked a second time."""
        made_anew = False
        while True:
            try:
                if made_anew:
                    self._study = self._make_study()
                return call(self._study) if again or not made_anew else None
            except OSError as error:
                if not is_full(error):
                    raise
                self._room.full(error)
                made_anew = True

    def _append(self, kind: Kind, trial_id: str, **values: Any) -> None:
        number = self._numbers[trial_id]
        attempt = self._record.trials[number].attempt
        self._ledger.append(kind, trial=trial_id, number=number, attempt=attempt, **values)

    def _end(self, number: int, verdict: Verdict, traceback: str = "") -> None:
        self._plaques.end(number)
        trial = self._record.trials[number]
        details = {"message": verdict.message, "remedy": verdict.remedy, "traceback": traceback}
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
        self._in_study(lambda study: study.tell(number, verdict, trial.best_eval_loss))
        drop_surplus(self._folder, self._record, self._terms.keep_adapters, ended=number)


def _no_suggestion(number: int, error: Exception) -> InputError:
    return InputError(
        f"drawing trial {number} failed: {type(error).__name__}: {error}",
        where="search.space",
        expected="a point that the program takes",
        remedy="mend the space and start a new search; `show` and `export` read what has run",
    )
