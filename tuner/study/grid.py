"""A sampler that visits every point of a finite space once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.study.distinct import point_key


class GridWalk(BaseSampler):
    """Suggests, in a seeded order, the first point that no trial of the study has.

    Optuna's own GridSampler does not count the recipe as one of its points (3 trials over 3 points ran one twice and
    one not at all), raises from `tell` when the grid is used up, and cannot walk a space with conditions. This one
    has no state of its own: it reads from the study which points have been visited.
    """

    def __init__(self, space: Any, *, seed: int) -> None:
        self._points = list(space.grid())
        self._seed = seed
        random.Random(seed).shuffle(self._points)  # noqa: S311  an order is no secret
        self._next: Mapping[str, Any] | None = None

    def next_point(self, study: Study, number: int) -> Mapping[str, Any] | None:
        """The point for trial `number`; None when the grid is used up."""
        visited = {point_key(t.params) for t in study.get_trials(deepcopy=False) if t.number != number}
        return next((point for point in self._points if point_key(point) not in visited), None)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled together: a point is looked up parameter by parameter."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._next = self._next or self.next_point(study, trial.number) or {}
        if param_name not in self._next:
            # A trial that a person added leaves this value open, and the grid is used up or its point has no such value
            return RandomSampler(seed=self._seed).sample_independent(study, trial, param_name, param_distribution)
        return self._next[param_name]
