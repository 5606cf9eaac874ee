"""Draws each point of a finite space once: a trial that repeats another costs as much and says nothing new."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

PointKey = tuple[tuple[str, Any], ...]

DRAWS = 5
"""How often a sampler may draw until a point is new; it is told the known result of each repeat. A Gaussian process is
fitted again for each draw, which takes 0.1 s and more."""


@dataclass(frozen=True)
class Drawn:
    """A point that no trial has."""

    params: Mapping[str, Any]
    """As Optuna stores them."""
    notes: Mapping[str, Any]
    """The system attributes that the sampler set on the trial (CMA-ES keeps its state there)."""


def point_key(params: Mapping[str, Any]) -> PointKey:
    """A key that is equal for equal points. params: as Optuna stores them."""
    return tuple(sorted(params.items()))


def known_points(study: optuna.Study) -> dict[PointKey, FrozenTrial]:
    """The trials of a study by their points, without those that wait to begin."""
    trials = study.get_trials(deepcopy=False)
    return {point_key(t.params): t for t in trials if t.state is not TrialState.WAITING}


def draw_new(study: optuna.Study, known: Mapping[PointKey, FrozenTrial], space: Any, seed: int) -> Drawn | None:
    """The next point that the study's sampler draws and `known` lacks; None where `known` has every point of `space`.

    The sampler draws in a copy of the study. Where it repeats a point, the copy is told the known result, so that the
    sampler learns to look elsewhere. Only the attributes that it sets on the study are copied back. After `DRAWS`
    repeats one of the remaining points is chosen at random.
    """
    if len(known) >= space.size and not _remaining(space, known):
        return None
    copy = optuna.create_study(sampler=study.sampler, direction=study.direction)
    _copy_notes(study, copy)
    copy.add_trials([t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING])
    drawn = None
    for _ in range(DRAWS):
        trial = copy.ask()
        params = space.encode(space.suggest(trial))
        if (before := known.get(point_key(params))) is None:
            drawn = Drawn(params, dict(copy.get_trials(deepcopy=False)[trial.number].system_attrs))
            break
        _tell(copy, trial, before)
    _copy_notes(copy, study)
    if drawn is None:
        chance = random.Random(seed)  # noqa: S311  a seeded choice is the point
        drawn = Drawn(chance.choice(_remaining(space, known)), {})
    return drawn


def _remaining(space: Any, known: Mapping[PointKey, FrozenTrial]) -> list[dict[str, Any]]:
    points = (space.encode(point) for point in space.points())
    return [point for point in points if point_key(point) not in known]


def _tell(study: optuna.Study, trial: optuna.Trial, before: FrozenTrial) -> None:
    """Ends a repeat as the trial that it repeats has ended; one that still runs says nothing yet."""
    for step, value in before.intermediate_values.items():
        trial.report(value, step)
    for name, value in before.constraints.items():
        trial.set_constraint(name, value)
    complete = before.state is TrialState.COMPLETE
    state = before.state if before.state.is_finished() else TrialState.FAIL
    study.tell(trial, before.value if complete else None, state=state)


def _copy_notes(source: optuna.Study, to: optuna.Study) -> None:
    """Copies the system attributes that a sampler has set on a study, such as its place in a quasi-random sequence."""
    known = to._storage.get_study_system_attrs(to._study_id)
    for name, value in source._storage.get_study_system_attrs(source._study_id).items():
        if known.get(name) != value:
            to._storage.set_study_system_attr(to._study_id, name, value)
