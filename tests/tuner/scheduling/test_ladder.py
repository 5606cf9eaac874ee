"""The shares of a trial at which rungs and evaluations lie."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler

from tuner.contract import Assignment
from tuner.scheduling.ladder import HIGHEST, make_ladder


def test_the_grace_period_is_a_27th_or_twice_the_warm_up() -> None:
    short = make_ladder(100, grace_period=None, reduction_factor=3, warmup=0.01, eval_every=0.1)
    assert short.grace_period == 4 and short.rungs == (4, 12, 36)
    warm = make_ladder(100, grace_period=None, reduction_factor=3, warmup=0.1, eval_every=0.1)
    assert warm.grace_period == 20 and warm.rungs == (20, 60)


def test_evaluations_hold_every_rung_and_no_neighbours() -> None:
    ladder = make_ladder(100, grace_period=None, reduction_factor=3, warmup=0.01, eval_every=0.1)
    assert ladder.evaluate_at == (0.04, 0.12, 0.2, 0.3, 0.36, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.mark.parametrize(
    ("grace", "factor", "rungs"),
    [(3, 2, (3, 6, 12, 24, 48)), (6, 4, (6, 24)), (6, 3, (6, 18, 54)), (35, 2, (35, 70)), (80, 3, (80,))],
)
def test_no_rung_but_the_first_lies_near_the_end(grace: int, factor: float, rungs: tuple[float, ...]) -> None:
    ladder = make_ladder(100, grace_period=grace, reduction_factor=factor, warmup=0.0, eval_every=0.1)
    assert ladder.rungs == rungs


def test_without_asha_there_are_no_rungs() -> None:
    ladder = make_ladder(100, grace_period=None, reduction_factor=None, warmup=0.0, eval_every=0.25)
    assert ladder.rungs == () and ladder.evaluate_at == (0.25, 0.5, 0.75, 1.0)


@settings(deadline=None)
@given(
    max_t=st.integers(1, 10**9),
    reduction=st.sampled_from([2.0, 3.0, 4.0, 2.5]),
    warmup=st.floats(0, 0.5),
    every=st.floats(0.02, 1.0),
)
def test_every_ladder_is_in_order_and_every_rung_is_reached(
    max_t: int, reduction: float, warmup: float, every: float
) -> None:
    ladder = make_ladder(max_t, grace_period=None, reduction_factor=reduction, warmup=warmup, eval_every=every)
    assert list(ladder.rungs) == sorted(ladder.rungs) and all(rung < max_t for rung in ladder.rungs)
    shares = ladder.evaluate_at
    assert list(shares) == sorted(set(shares)) and shares[-1] == 1.0 and shares[0] > 0
    for max_steps in (7, 100, 1013):
        steps = Assignment(0, {}, 0, shares, "").evaluation_steps(max_steps)
        assert steps[-1] == max_steps and steps[0] >= 1 and list(steps) == sorted(set(steps))
        reached = [step / max_steps for step in steps]
        for rung in ladder.rungs:
            first = next(share for share in reached if share >= rung / max_t - 1e-9)
            assert first * max_steps <= math.ceil(rung / max_t * max_steps - 1e-9) + 1e-6


@pytest.mark.parametrize("max_t", [27, 100, 500, 10_000])
def test_the_rungs_are_those_of_rays_asha(max_t: int) -> None:
    ladder = make_ladder(max_t, grace_period=None, reduction_factor=3, warmup=0.0, eval_every=0.1)
    stock = AsyncHyperBandScheduler(
        time_attr="t", metric="loss", mode="min", max_t=max_t, grace_period=ladder.grace_period, reduction_factor=3
    )
    milestones = sorted(m for m, _ in stock._brackets[0]._rungs)
    assert [m for m in milestones if m <= HIGHEST * max_t] == list(ladder.rungs)
