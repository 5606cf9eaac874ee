"""The Optuna study of a search, kept in the run folder's `study.journal`.

What Optuna is told of each ending decides what it samples next, so it is told the truth:

1. completed (budget or flatline): COMPLETE, with the trial's best value of the search's first objective.
2. stopped at a rung: PRUNED, with its intermediate values. Stock Ray tells COMPLETE with an early value, and TPE then
   compares values of different fidelity.
3. diverged or out of memory: PRUNED and marked infeasible (a constraint above 0), so that the region is ranked
   behind everything that trained; by its step alone a late divergence would outrank an early stop at a rung.
4. failed or stopped by the user: FAIL, which samplers ignore.

A value that is not finite is never stored: a NaN left a trial RUNNING for ever under stock Ray.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.contract import EVAL_LOSS, Objective, Reason, Status, Verdict
from tuner.redaction import redact
from tuner.results.journal_check import journal_places, lost_end
from tuner.results.records import RECIPE, TrialRecord
from tuner.results.untrusted_read import is_plain_file
from tuner.seeds import derive_seed
from tuner.study.samplers import make_sampler, window_of

if TYPE_CHECKING:
    import optuna

    from tuner.study.distinct import Drawn
    from tuner.study.journal import FileLock

SUGGESTED_BY = "suggested_by"
"""The user attribute of an Optuna trial that was added to a running search: who added it."""

_OF_TRIAL = re.compile(r"dashboard:(\d{1,15}):")
"""The study attributes in which optuna-dashboard keeps its notes on a trial."""

INFEASIBLE = frozenset({Reason.DIVERGED, Reason.OUT_OF_MEMORY})
"""Endings that mark a point as infeasible."""


@dataclass(frozen=True)
class Suggestion:
    """The point that a trial is to train."""

    number: int
    """The number of the trial."""
    params: Mapping[str, Any]
    """By short name, as the program takes them."""
    distributions: Mapping[str, str]
    """Optuna's distribution of each parameter, as JSON."""


class Study:
    """The Optuna study of a search, in a journal file that others may write to as well.

    path: `study.journal` of the run folder. name: the search's, so that studies do not collide in a shared viewer.
    recipe: the parameters of trial 0. first: those of the trials after it that no sampler draws. objective: what its
    values are, and which way is better. attributes: what the search is made of, by name, for whoever opens the study.
    records: the trials in the ledger, for a resume; the journal is then written anew from them, because the ledger is
    the truth. The attributes that samplers and other programs had set in the old journal are kept. repeats: every trial
    is the recipe, with a seed of its own.
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
        first: Sequence[Mapping[str, Any]] = (),
        objective: Objective = EVAL_LOSS,
        attributes: Mapping[str, str] | None = None,
        records: Iterable[TrialRecord] = (),
        repeats: bool = False,
    ) -> None:
        import optuna

        from tuner.study.journal import FileLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._sampler = space, sampler
        self._num_trials, self._seed, self._objective = num_trials, seed, objective
        self._recipe, self._attributes = dict(recipe), dict(attributes or {})
        self._first = list(first)
        self._repeats = repeats
        self._live: dict[int, Any] = {}
        records = sorted(records, key=lambda r: r.number)
        lock = FileLock(path)
        locked = lock.acquire()  # what others append meanwhile would be lost; who holds it for longer is not waited for
        try:
            self._build(path, name, records, lock)
        finally:
            if locked:
                lock.release()

    def _build(self, path: Path, name: str, records: list[TrialRecord], lock: FileLock) -> None:
        """Writes the journal anew from the records, with the attributes of the old one."""
        import optuna

        from tuner.study.journal import Journal, Storage, Window

        notes = _Notes.read(path, name)
        # A resume from a ledger that lost its last lines would run trials again that have ended, and forget their
        # results
        if (error := lost_end(path, notes.states, records)) is not None:
            raise error
        fresh = path.with_name(path.name + ".new")
        size = window_of(self._sampler)
        self._journal = Journal(fresh)
        self._storage = Storage(self._journal, Window(size, self._objective) if size else None)
        direction = self._objective.direction
        self._study = optuna.create_study(storage=self._storage, study_name=name, direction=direction)
        for key, value in notes.study.items():
            self._storage.set_study_system_attr(self._study._study_id, key, value)
        for key, value in {**notes.study_of_users, **self._attributes}.items():
            self.set_attribute(key, value)
        for record in records:
            self._restore(record, notes.trials.get(record.number, {}), notes.trials_of_users.get(record.number, {}))
        self._asked = len(records)
        if not records:
            self._study.enqueue_trial(self._space.encode(self._recipe))
        self._journal.publish(path, lock)

    @property
    def optuna(self) -> optuna.Study:
        """The study itself, for reading."""
        return self._study

    def ask(self, given: Mapping[str, Any] | None = None, by: str = "") -> Suggestion | None:
        """Draws the next trial; None when a finite space is used up. The first is the recipe, and those after it are
        the points that the space names.

        Each point of a finite space is drawn once. given: the values of a trial that somebody suggests, which may
        repeat a point; the sampler draws the parameters that are not in it. by: who suggests it.
        """
        if self._repeats and given is None and self._asked != RECIPE:
            given = self._recipe
        if given is not None:
            self._study.enqueue_trial(self._space.encode(given), user_attrs={SUGGESTED_BY: by} if by else None)
        number = self._asked
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
        notes: Mapping[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's remarks on its own experimental parts
            if given is None and RECIPE < number <= len(self._first):
                self._study.enqueue_trial(self._space.encode(self._first[number - 1]))
            elif self._draws_new and number != RECIPE and given is None:
                drawn = self._draw_new(number)
                if drawn is None:
                    return None
                self._study.enqueue_trial(drawn.params)
                notes = drawn.notes
            with self._storage.narrowed():
                trial = self._study.ask()
                params = self._space.suggest(trial, only=self._recipe if number == RECIPE else None)
            for name, value in notes.items():
                self._storage.set_trial_system_attr(trial._trial_id, name, value)
        self._asked += 1
        self._live[trial.number] = trial
        return Suggestion(trial.number, params, _distributions(trial.distributions))

    @property
    def _draws_new(self) -> bool:
        """Whether `draw_new` has to draw, so that no point repeats another; a grid's sampler repeats none by itself."""
        return self._space.size is not None and self._sampler.kind != "grid"

    def _draw_new(self, number: int) -> Drawn | None:
        from tuner.study.distinct import draw_new, known_points

        known = known_points(self._study)
        with self._storage.narrowed():
            return draw_new(self._study, known, self._space, derive_seed(self._seed, "sampler", number))

    def report(self, number: int, resource: int, value: float | None) -> None:
        """Stores an intermediate value at `resource` (steps or tokens); one that is not finite is left out."""
        if value is not None and math.isfinite(value):
            self._trial(number).report(value, resource)

    def tell(self, number: int, verdict: Verdict, best: float | None) -> None:
        """Stores the ending of a trial; `best` is its best finite value."""
        from optuna.trial import TrialState

        trial = self._trial(number)
        trial.set_user_attr("ending", redact(f"{verdict.status}: {verdict.message or verdict.reason}"))
        state, value, infeasible = _translate(verdict.reason, best)
        if infeasible:
            trial.set_constraint("trainable", 1.0)
        self._study.tell(number, value, state=TrialState[state])
        self._live.pop(number, None)

    def set_attribute(self, name: str, value: Any) -> None:
        """Sets a user attribute of the study: one line of the journal."""
        self._storage.set_study_user_attr(self._study._study_id, name, value)

    def abandon(self, number: int) -> None:
        """Tells Optuna that a trial that was cut off has failed, unless it has its ending. A resume runs it again."""
        if not self._storage.get_trial(self._id(number)).state.is_finished():
            self.tell(number, Verdict(Reason.USER, "interrupted"), None)

    def _trial(self, number: int) -> Any:
        from optuna.trial import Trial

        if number not in self._live:
            self._live[number] = Trial(self._study, self._id(number))
        return self._live[number]

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def _restore(self, record: TrialRecord, system_attrs: Mapping[str, Any], user_attrs: Mapping[str, Any]) -> None:
        import optuna
        from optuna.trial import TrialState

        distributions = {name: _distribution(text) for name, text in record.distributions.items()}
        encoded = self._space.encode(record.params)
        params = {name: value for name, value in encoded.items() if name in distributions}
        state, value, infeasible = ("RUNNING", None, False)
        if record.reason is not None:
            state, value, infeasible = _translate(record.reason, record.best_value)
            if state == "PRUNED" and record.curve:
                value = record.intermediate(record.curve[-1])  # as Optuna's own `tell` has it
        attrs = dict(system_attrs)
        if infeasible:
            attrs["constraints:trainable"] = 1.0
        own = {SUGGESTED_BY: record.added_by} if record.added_by else {}
        own |= {"ending": record.ending} if record.reason else {}
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
                user_attrs={**user_attrs, **own},
                system_attrs=attrs,
                intermediate_values={
                    p.resource: value
                    for p in record.points
                    if p.is_finite and (value := record.intermediate(p.value)) is not None
                },
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


@lru_cache(maxsize=1024)
def _distribution(text: str) -> optuna.distributions.BaseDistribution:
    """Optuna's distribution from its JSON; the trials of a search share a few."""
    from optuna.distributions import json_to_distribution

    return json_to_distribution(text)


def _distributions(distributions: Mapping[str, Any]) -> dict[str, str]:
    from optuna.distributions import distribution_to_json

    return {name: distribution_to_json(d) for name, d in distributions.items()}


@dataclass(frozen=True)
class _Notes:
    """What a journal has beside what the ledger knows: the attributes that samplers and other programs set on the study
    and on the search's own trials."""

    study: Mapping[str, Any] = field(default_factory=dict)
    """System attributes of the study, such as a sampler's place in a quasi-random sequence."""
    study_of_users: Mapping[str, Any] = field(default_factory=dict)
    """User attributes of the study."""
    trials: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """System attributes of each trial, by its number."""
    trials_of_users: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """User attributes of each trial, by its number."""
    states: Mapping[int, str] = field(default_factory=dict)
    """Optuna's state of each trial, by its number."""

    @classmethod
    def read(cls, path: Path, name: str) -> _Notes:
        """Reads them from an earlier journal; nothing where it cannot be read."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        if not is_plain_file(path):
            return cls()
        places, states = journal_places(path)
        numbers = {place: number for number, place in enumerate(places.own)}
        try:
            study = optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))
            noted = study._storage.get_study_system_attrs(study._study_id)
            of_users = study.user_attrs
            trials = {numbers[t._trial_id]: t for t in study.get_trials(deepcopy=False) if t._trial_id in numbers}
        except Exception:  # a damaged journal costs a sampler its notes and nothing else: the ledger rebuilds the study
            return cls(states=states)
        return cls(
            {moved: value for key, value in noted.items() if (moved := _moved(key, numbers)) is not None},
            of_users,
            {number: json.loads(json.dumps(t.system_attrs)) for number, t in trials.items()},
            {number: json.loads(json.dumps(t.user_attrs)) for number, t in trials.items()},
            states,
        )


def _moved(key: str, numbers: Mapping[int, int]) -> str | None:
    """The name of a study attribute in the new journal, where a trial's place is its number; None where the attribute
    is about a trial that is not ours. numbers: the number of each trial by its place in the old journal."""
    found = _OF_TRIAL.match(key)
    if found is None:
        return key
    number = numbers.get(int(found[1]))
    return None if number is None else f"dashboard:{number}:{key[found.end() :]}"
