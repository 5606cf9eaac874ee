"""Foresees how much of its trials' budgets a search will use, by playing it many times with losses that are drawn.

A mean over rungs ("one in three goes on") is far too low for a short search: no trial waits for others, so the first
one at a rung always goes on and the second does so half the time, and those that passed one rung are likely to pass
the next. So the real algorithm judges trials of drawn quality here, on as many workers as the search has.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tuner.contract import Objective
from tuner.scheduling.algorithms import AlgorithmContext, Candidate, registered
from tuner.scheduling.judge import Judge
from tuner.scheduling.ladder import Ladder
from tuner.scheduling.rules import Reading

NOISE, FALLS = 0.011, 1.8
"""The variance of a loss at a share s of the budget around the trial's own quality, whose variance is 1: NOISE / s **
FALLS. At 6, 18 and 54% the loss then correlates with the final one at 0.60, 0.90 and 0.98, as over 600 points of the
embedded base (`ladder.GRACE_SHARE`)."""
LEARNS = 1.0
"""By how many standard deviations the last trials of a search are better than the first ones: the sampler learns."""
PLAYS, DECISIONS = 200, 4000
"""How often a search is played, at most, and about how many trials are played in all."""
LONGEST = 400
"""Trials of the longest search that is played; a longer one takes as much for each further trial."""


@dataclass(frozen=True)
class Pace:
    """What a trial takes, in seconds."""

    begin: float = 0.0
    """From its start to its first step."""
    whole: float = 1.0
    """All steps of a trial of cost 1, without its evaluations."""
    evaluation: float = 0.0
    """An evaluation."""


@dataclass(frozen=True)
class Range:
    """What is expected, and the range in which 8 of 10 searches end."""

    least: float
    likely: float
    """The mean over the searches."""
    most: float

    def times(self, factor: float) -> Range:
        """All of it by a factor."""
        return Range(self.least * factor, self.likely * factor, self.most * factor)


@dataclass(frozen=True)
class Forecast:
    """What a search is expected to take."""

    work: Range
    """The work in whole trials of cost 1."""
    of_all: float
    """The work as a share of that of all trials run to their end."""
    evaluations: float
    """Evaluations of all trials."""
    seconds: Range
    """From the first trial's start to the last one's end."""


def forecast(
    scheduler: Any,
    ladder: Ladder,
    objective: Objective,
    num_trials: int,
    *,
    workers: int = 1,
    costs: Sequence[float] = (1.0,),
    pace: Pace | None = None,
    learns: bool = True,
) -> Forecast:
    """Plays a search.

    scheduler: the settings. costs: what whole trials cost, the recipe's first, then those of points of the space, of
    which every trial gets one. learns: whether the sampler draws better trials later.
    """
    trials = min(num_trials, LONGEST)
    plays = max(8, min(PLAYS, DECISIONS // trials))
    played = [
        _Play(scheduler, ladder, objective, trials, workers, costs, pace or Pace(), learns, random.Random(seed)).run()  # noqa: S311  drawn losses
        for seed in range(plays)
    ]
    work, whole, evaluations, seconds = ([one[i] for one in played] for i in range(4))
    more, of_all = num_trials / trials, fmean(work) / fmean(whole)
    return Forecast(_range(work).times(more), of_all, fmean(evaluations) * more, _range(seconds).times(more))


def _range(values: Sequence[float]) -> Range:
    ascending = sorted(values)
    at = (len(ascending) - 1) / 10
    return Range(ascending[math.floor(at)], fmean(ascending), ascending[math.ceil(9 * at)])


@dataclass
class _Trial:
    number: int
    quality: float
    cost: float
    passed: int = 0
    """How many places it has passed."""
    value: float = 0.0
    """At the last of them."""


class _Play:
    """One search."""

    def __init__(
        self,
        scheduler: Any,
        ladder: Ladder,
        objective: Objective,
        trials: int,
        workers: int,
        costs: Sequence[float],
        pace: Pace,
        learns: bool,
        draws: random.Random,
    ) -> None:
        algorithm = registered(scheduler).build(scheduler, ladder, AlgorithmContext(objective, ladder.max_t))
        self._judge, self._places, self._max_t = Judge(algorithm), ladder.evaluate_at, ladder.max_t
        self._sign = objective.cost(1.0)
        self._trials, self._workers, self._costs, self._pace = trials, workers, costs, pace
        self._learns, self._draws = learns, draws
        self._begun, self._whole = 0, 0.0
        self._parked: dict[int, _Trial] = {}

    def run(self) -> tuple[float, float, float, float]:
        """The work, that of all trials run to their end, the number of evaluations, and the seconds."""
        work, evaluations, now = 0.0, 0, 0.0
        busy: list[tuple[float, int, _Trial]] = []
        free, order = self._workers, 0
        while True:
            while free and (trial := self._next(bool(busy))) is not None:
                free, order = free - 1, order + 1
                heapq.heappush(busy, (now + self._pace.begin + self._leg(trial), order, trial))
            if not busy:
                return work, self._whole, float(evaluations), now
            now, _, trial = heapq.heappop(busy)
            work += trial.cost * self._way(trial)
            evaluations += 1
            trial.passed += 1
            if self._goes_on(trial):
                order += 1
                heapq.heappush(busy, (now + self._leg(trial), order, trial))
            else:
                free += 1

    def _next(self, others_run: bool) -> _Trial | None:
        """The trial that a free worker takes."""
        more = self._begun < self._trials
        if self._parked:
            curves = {number: self._curve(trial) for number, trial in self._parked.items()}
            number = self._judge.promote(curves, more or others_run)
            if number is not None:
                return self._parked.pop(number)
        if not more:
            return None
        number, self._begun = self._begun, self._begun + 1
        cost = self._draws.choice(self._costs[1:] or self._costs) if number else self._costs[0]
        self._whole += cost
        if number == 0:
            return _Trial(0, 0.0, cost)
        better = LEARNS * number / self._trials if self._learns else 0.0
        return _Trial(number, self._draws.gauss(better, 1.0), cost)

    def _way(self, trial: _Trial) -> float:
        """The share of the budget to its next place."""
        return self._places[trial.passed] - (self._places[trial.passed - 1] if trial.passed else 0.0)

    def _leg(self, trial: _Trial) -> float:
        """The seconds to its next place, the evaluation there included."""
        return self._pace.whole * trial.cost * self._way(trial) + self._pace.evaluation

    def _curve(self, trial: _Trial) -> list[Reading]:
        return [Reading(round(self._places[trial.passed - 1] * self._max_t), trial.value)]

    def _goes_on(self, trial: _Trial) -> bool:
        """Whether the trial goes on after its evaluation at the place that it has passed last."""
        share = self._places[trial.passed - 1]
        noise = self._draws.gauss(0.0, math.sqrt(NOISE / share**FALLS))
        trial.value = -self._sign * (trial.quality + noise)
        finished = trial.passed == len(self._places)
        candidate = Candidate(trial.number, self._curve(trial), finished, spared=trial.number == 0)
        decision = self._judge.decide(candidate)
        if decision.pauses:
            self._parked[trial.number] = trial
        return decision.goes_on
