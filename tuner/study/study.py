"""The Optuna study of a search, kept in the run folder's `study.journal`.

What Optuna is told of each ending decides what it samples next, so it is told the truth:

1. completed (budget or flatline): COMPLETE, with the trial's best validation loss.
2. stopped at a rung: PRUNED, with its intermediate values. Stock Ray tells COMPLETE with an early loss, and TPE then
   compares losses of different fidelity.
3. diverged or out of memory: PRUNED and marked infeasible (a constraint above 0), so that the region is ranked
   behind everything that trained; by its step alone a late divergence would outrank an early stop at a rung.
4. failed or stopped by the user: FAIL, which samplers ignore.

A value that is not finite is never stored: a NaN left a trial RUNNING for ever under stock Ray.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.contract import Reason, Status, Verdict
from tuner.results.records import RECIPE, TrialRecord
from tuner.study.samplers import make_sampler

if TYPE_CHECKING:
    import optuna

SUGGESTED_BY = "suggested_by"
"""The attribute of an Optuna trial that somebody added to a running search."""

INFEASIBLE = frozenset({Reason.DIVERGED, Reason.OUT_OF_MEMORY})


@dataclass(frozen=True)
class Suggestion:
    """One point of the space. `distributions` are Optuna's own, as JSON, by parameter."""

    number: int
    params: Mapping[str, Any]
    distributions: Mapping[str, str]


class Study:
    """An Optuna study with one writer, in a journal file.

    path: `study.journal` of the run folder. name: the search's, so that studies do not collide in a shared viewer.
    recipe: the parameters of trial 0. records: what the ledger knows (a resume); the journal is then written anew
    from them, because the ledger is the truth, keeping only what samplers had noted on trials of the old journal.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        space: Any,
        sampler: Any,
        num_trials: int,
        seed: int,
        recipe: Mapping[str, Any],
        records: Iterable[TrialRecord] = (),
    ) -> None:
        self._space, self._sampler = space, sampler
        self._num_trials, self._seed = num_trials, seed
        self._recipe = dict(recipe)
        self._live: dict[int, Any] = {}
        records = sorted(records, key=lambda r: r.number)
        notes = _sampler_notes(path, name)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        self._study = _create(fresh, name)
        for record in records:
            self._restore(record, notes.get(record.number, {}))
        if not records:
            self._study.enqueue_trial(space.encode(recipe))
        fresh.replace(path)
        self._study = _open(path, name)

    @property
    def optuna(self) -> optuna.Study:
        """The study itself, for reading."""
        return self._study

    def ask(self, given: Mapping[str, Any] | None = None, by: str = "") -> Suggestion | None:
        """Draws the next trial; None when a grid is used up. The first is the recipe.

        given: the values of a trial that somebody suggests, and `by` who; the sampler draws what it leaves open.
        """
        if given is not None:
            self._study.enqueue_trial(self._space.encode(given), user_attrs={SUGGESTED_BY: by})
        trials = self._study.get_trials(deepcopy=False)
        waits = given is not None or (len(trials) == 1 and trials[0].state.name == "WAITING")
        number = len(trials) - 1 if waits else len(trials)
        self._study.sampler = make_sampler(
            self._sampler, self._space, num_trials=self._num_trials, seed=self._seed, number=number
        )
        if (
            self._sampler.kind == "grid"
            and number != RECIPE
            and given is None
            and not self._study.sampler.next_point(self._study, number)
        ):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's remarks on its own experimental parts
            trial = self._study.ask()
            params = self._space.suggest(trial, only=self._recipe if number == RECIPE else None)
        self._live[trial.number] = trial
        return Suggestion(trial.number, params, _distributions(trial.distributions))

    def report(self, number: int, resource: int, eval_loss: float | None) -> None:
        """Stores an intermediate value at `resource` (steps or tokens); one that is not finite is left out."""
        if eval_loss is not None and math.isfinite(eval_loss):
            self._trial(number).report(eval_loss, resource)

    def tell(self, number: int, verdict: Verdict, best: float | None) -> None:
        """Stores the ending of a trial; `best` is its lowest finite loss."""
        from optuna.trial import TrialState

        trial = self._trial(number)
        trial.set_user_attr("ending", f"{verdict.status}: {verdict.message or verdict.reason}")
        state, value, infeasible = _translate(verdict.reason, best)
        if infeasible:
            trial.set_constraint("trainable", 1.0)
        self._study.tell(number, value, state=TrialState[state])
        self._live.pop(number, None)

    def abandon(self, number: int) -> None:
        """Tells a trial that was cut off as failed, unless it has its ending; a resume takes it up again."""
        if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
            self.tell(number, Verdict(Reason.USER, "interrupted"), None)

    def _trial(self, number: int) -> Any:
        from optuna.trial import Trial

        if number not in self._live:
            trial_id = self._study.get_trials(deepcopy=False)[number]._trial_id
            self._live[number] = Trial(self._study, trial_id)
        return self._live[number]

    def _restore(self, record: TrialRecord, system_attrs: Mapping[str, Any]) -> None:
        import optuna
        from optuna.trial import TrialState

        distributions = {
            name: optuna.distributions.json_to_distribution(text) for name, text in record.distributions.items()
        }
        encoded = self._space.encode(record.params)
        params = {name: value for name, value in encoded.items() if name in distributions}
        state, value, infeasible = ("RUNNING", None, False)
        if record.reason is not None:
            state, value, infeasible = _translate(record.reason, record.best_eval_loss)
            if state == "PRUNED" and record.curve:
                value = record.curve[-1]  # as Optuna's own `tell` has it
        attrs = dict(system_attrs)
        if infeasible:
            attrs["constraints:trainable"] = 1.0
        user_attrs = {SUGGESTED_BY: record.added_by} if record.added_by else {}
        user_attrs |= {"ending": record.ending} if record.reason else {}
        started = datetime.fromtimestamp(record.started or 0)
        self._study.add_trial(
            optuna.trial.FrozenTrial(
                number=-1,
                trial_id=-1,
                state=TrialState[state],
                value=value,
                values=None,
                datetime_start=started,
                datetime_complete=datetime.fromtimestamp(record.ended or 0) if state != "RUNNING" else None,
                params=params,
                distributions={name: distributions[name] for name in params},
                user_attrs=user_attrs,
                system_attrs=attrs,
                intermediate_values={p.resource: p.eval_loss for p in record.points if p.is_finite},
            )
        )


def _translate(reason: Reason, best: float | None) -> tuple[str, float | None, bool]:
    """Optuna's state, the value to store, and whether the point counts as infeasible."""
    if reason in INFEASIBLE:
        return "PRUNED", None, True
    if reason.status is Status.COMPLETED and best is not None:
        return "COMPLETE", best, False
    if reason is Reason.RUNG:
        return "PRUNED", None, False
    return "FAIL", None, False


def _distributions(distributions: Mapping[str, Any]) -> dict[str, str]:
    from optuna.distributions import distribution_to_json

    return {name: distribution_to_json(d) for name, d in distributions.items()}


def _storage(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def _create(path: Path, name: str) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=_storage(path), study_name=name, direction="minimize")


def _open(path: Path, name: str) -> optuna.Study:
    import optuna

    return optuna.load_study(study_name=name, storage=_storage(path))


def _sampler_notes(path: Path, name: str) -> dict[int, dict[str, Any]]:
    """What samplers noted on the trials of an earlier journal (visited grid points, say), where it can be read."""
    if not path.exists():
        return {}
    try:
        trials = _open(path, name).get_trials(deepcopy=False)
    except Exception:  # a damaged journal costs a sampler its notes and nothing else: the ledger rebuilds the study
        return {}
    return {t.number: json.loads(json.dumps(t.system_attrs)) for t in trials}
