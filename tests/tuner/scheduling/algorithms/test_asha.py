"""ASHA without Ray, and beside Ray's own: the same reports, the same decisions, the same cut-offs to the last bit."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from tuner.config import Asha as Settings
from tuner.contract import EVAL_LOSS, Objective, Reason, Verdict
from tuner.scheduling.algorithms import Candidate, Decision, make_algorithm
from tuner.scheduling.judge import Judge
from tuner.scheduling.ladder import HIGHEST, Ladder, make_ladder
from tuner.scheduling.rules import Reading

REWARD = Objective("reward", direction="maximize")
LADDER = make_ladder(100, grace_period=4, reduction_factor=3, warmup=0.0, eval_every=0.1)


class Search:
    """A search of trials that report to one judge."""

    def __init__(
        self, objective: Objective = EVAL_LOSS, ladder: Ladder = LADDER, history: Any = (), **settings: Any
    ) -> None:
        made = Settings(reduction_factor=ladder.reduction_factor, **settings)
        algorithm = make_algorithm(made, ladder, objective)
        self._max_t = ladder.max_t
        self.judge = Judge(algorithm, history)
        self.curves: dict[int, list[Reading]] = {}

    def report(self, trial: int, resource: int, value: float | None, spared: bool = False) -> Decision:
        curve = self.curves.setdefault(trial, [])
        curve.append(Reading(resource, value))
        return self.judge.decide(Candidate(trial, curve, finished=resource >= self._max_t, spared=spared))

    @property
    def compared(self) -> list[list[float]]:
        return [sorted(s for s in rung.scores.values() if not math.isnan(s)) for rung in self.judge.peers.rungs]


def bare(objective: Objective = EVAL_LOSS, ladder: Ladder = LADDER) -> Search:
    return Search(objective, ladder, flatline=None, diverged=None)


def test_a_trial_behind_is_stopped_with_what_it_needed() -> None:
    search = Search()
    first = [search.report(number, 4, loss).verdict for number, loss in enumerate([5.0, 5.5, 4.0])]
    assert first == [None, Verdict(Reason.RUNG, "rung 1 (5.500, needed 5.000)"), None]
    assert search.report(2, 12, 3.0).goes_on
    assert search.report(0, 12, 4.9).verdict == Verdict(Reason.RUNG, "rung 2 (4.900, needed 3.000)")


def test_of_a_number_that_rises_the_low_one_is_behind() -> None:
    search = Search(REWARD)
    found = [search.report(number, 4, value).verdict for number, value in enumerate([5.0, 4.5, 6.0])]
    assert found == [None, Verdict(Reason.RUNG, "rung 1 (4.500, needed 5.000)"), None]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_number_ends_its_trial_and_leaves_the_rungs_alone(value: float | None) -> None:
    search = Search()
    verdict = search.report(0, 4, value).verdict
    assert verdict is not None and verdict.reason is (Reason.ERROR if value is None else Reason.DIVERGED)
    assert search.compared == [[], [], []]
    assert search.report(1, 4, 3.0).goes_on


def test_the_last_step_completes_whatever_the_curve() -> None:
    search = Search()
    decisions = [search.report(0, step, 5.0 - step / 100) for step in (4, 12, 20, 36, 100)]
    assert [decision.verdict for decision in decisions] == [None] * 4 + [Verdict(Reason.BUDGET, "budget")]


def test_a_spared_trial_passes_rungs_and_counts_there() -> None:
    search = Search()
    search.report(0, 4, 3.0)
    assert search.report(1, 4, 5.0, spared=True).goes_on
    assert search.compared[0] == [-5.0, -3.0]


def test_an_evaluation_past_two_rungs_leaves_no_late_loss_at_the_lower() -> None:
    search = Search()
    for resource, loss in [(25, 4.0), (50, 3.5), (75, 3.2)]:
        search.report(0, resource, loss)
    assert search.report(1, 4, 4.9).goes_on, "nobody was compared at the first rung"


def test_rungs_are_filled_again_from_the_curves() -> None:
    search, rng = Search(), random.Random(3)
    for trial in range(8):
        for resource in (4, 12, 36):
            if not search.report(trial, resource, rng.uniform(2, 6)).goes_on:
                break
    resumed = Search(history=search.curves.items())
    assert resumed.compared == search.compared and len(search.compared[0]) == 8


@settings(deadline=None)
@given(
    st.integers(2, 2000),
    st.integers(1, 2000),
    st.one_of(st.integers(2, 16).map(float), st.floats(1.01, 16)),
)
def test_the_rungs_are_rays_up_to_the_highest_share(max_t: int, grace: int, factor: float) -> None:
    grace = min(grace, max_t - 1)
    ladder = make_ladder(max_t, grace_period=grace, reduction_factor=factor, warmup=0.0, eval_every=0.1)
    rays = AsyncHyperBandScheduler(max_t=max_t, grace_period=grace, reduction_factor=factor)._brackets[0]
    theirs = sorted(m for m, _ in rays._rungs if m < max_t and (m == grace or m <= HIGHEST * max_t))
    assert [rung.milestone for rung in bare(ladder=ladder).judge.peers.rungs if rung.milestone < max_t] == theirs


@pytest.mark.parametrize("objective", [EVAL_LOSS, REWARD])
@pytest.mark.parametrize(("grace", "factor"), [(4, 3), (1, 2), (4, 2.5), (3, 4), (20, 1.5)])
def test_on_plain_values_it_decides_as_rays_asha_does(objective: Objective, grace: int, factor: float) -> None:
    """The same reports in the same order, many searches long; the cut-off that a verdict tells is Ray's too."""
    rng, stopped = random.Random(7), 0
    ladder = make_ladder(100, grace_period=grace, reduction_factor=factor, warmup=0.0, eval_every=0.1)
    steps = [math.ceil(share * 100 - 1e-9) for share in ladder.evaluate_at]
    for _ in range(40):
        ours = bare(objective, ladder)
        stock = AsyncHyperBandScheduler(
            time_attr="t", metric="value", mode="min" if objective.falls else "max",
            max_t=100, grace_period=grace, reduction_factor=factor,
        )  # fmt: skip
        running: dict[int, list[int]] = {trial: list(steps) for trial in range(20)}
        for trial in running:
            stock.on_trial_add(None, SimpleNamespace(trial_id=trial))  # type: ignore[arg-type]
        while running:
            trial = rng.choice(sorted(running))
            step, value = running[trial].pop(0), rng.uniform(1, 9)
            cut_offs = {milestone: stock._brackets[0].cutoff(known) for milestone, known in stock._brackets[0]._rungs}
            theirs = stock.on_trial_result(None, SimpleNamespace(trial_id=trial), {"t": step, "value": value})  # type: ignore[arg-type]
            decision = ours.report(trial, step, value)
            assert decision.goes_on == (theirs == TrialScheduler.CONTINUE)
            if decision.goes_on:
                continue
            del running[trial]
            if decision.verdict and decision.verdict.reason is Reason.RUNG:
                stopped += 1
                needed = objective.cost(-cut_offs[max(m for m in cut_offs if m <= step)])
                assert decision.verdict.message.endswith(f"({value:.3f}, needed {needed:.3f})")
    assert stopped > 100


@pytest.mark.parametrize("factor", [2, 2.5, 3, 4])
def test_a_rungs_cut_off_is_rays_to_the_last_bit(factor: float) -> None:
    rng = random.Random(5)
    rays = AsyncHyperBandScheduler(max_t=100, grace_period=4, reduction_factor=factor)._brackets[0]
    rung = bare(
        ladder=make_ladder(100, grace_period=4, reduction_factor=factor, warmup=0, eval_every=0.1)
    ).judge.peers.rungs[0]
    assert math.isnan(rung.quantile(1 - 1 / factor))
    for trial in range(300):
        rung.note(trial, math.nan if trial and rng.random() < 0.2 else rng.uniform(-9, 0))
        assert rung.quantile(1 - 1 / factor) == rays.cutoff(dict(rung.scores))
