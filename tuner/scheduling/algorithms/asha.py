"""Asynchronous successive halving that stops (Li et al. 2018, arXiv:1810.05934), as Ray Tune has it.

At each rung a trial is compared at once with those that were there before it. It goes on if it is among the best
1/reduction_factor of them, and is stopped otherwise; no trial waits for others, and none is resumed. Rungs, cut-offs
and decisions are those of Ray's AsyncHyperBandScheduler with one bracket, to the last bit, except that no rung but the
first lies above `ladder.HIGHEST` of the budget.
"""

from __future__ import annotations

import math

from tuner.config import Asha as Settings
from tuner.scheduling.algorithms.base import (
    CONTINUE,
    NO_RUNGS,
    Algorithm,
    AlgorithmContext,
    Candidate,
    Decision,
    Registered,
    stop,
)
from tuner.scheduling.ladder import HIGHEST, Ladder, Spacing
from tuner.scheduling.peers import Peers
from tuner.scheduling.rules.rung import behind


class Asha(Algorithm):
    """ASHA. grace_period: the first rung, in steps or tokens. reduction_factor: a rung lets one trial in this many
    pass."""

    def __init__(self, context: AlgorithmContext, *, grace_period: int, reduction_factor: float) -> None:
        super().__init__(context)
        self._factor = reduction_factor
        count = 0
        if grace_period < context.max_t:
            count = int(math.log(context.max_t / grace_period) / math.log(reduction_factor) + 1)
        milestones = (grace_period * reduction_factor**k for k in range(count))
        self._milestones = tuple(m for k, m in enumerate(milestones) if not k or m <= HIGHEST * context.max_t)

    @property
    def milestones(self) -> tuple[float, ...]:
        return self._milestones

    def compare(self, trial: Candidate, peers: Peers) -> Decision:
        last = trial.curve[-1]
        rung = peers.due(trial.number, last.resource)
        if rung is None or last.value is None:
            return CONTINUE
        needed = rung.quantile(1 - 1 / self._factor)
        if not peers.score(last.value) < needed:  # also where nobody has been there: NaN
            return CONTINUE
        return stop(behind(rung.number, last.value, peers.value(needed)))


def _spacing(settings: Settings) -> Spacing:
    return Spacing(settings.reduction_factor, settings.grace_period)


def _build(settings: Settings, ladder: Ladder, context: AlgorithmContext) -> Asha:
    return Asha(context, grace_period=ladder.grace_period, reduction_factor=settings.reduction_factor)


def _describe(settings: Settings, places: str) -> str:
    return f"at {places}; the best one in {settings.reduction_factor:g} goes on" if places else NO_RUNGS


REGISTERED = Registered(spacing=_spacing, build=_build, describe=_describe)
