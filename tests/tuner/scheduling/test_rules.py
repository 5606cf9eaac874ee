"""Tables of rules: curves, and the evaluation at which each must be stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tuner.contract import EVAL_LOSS, Objective, Reason, Verdict
from tuner.scheduling.rules import Diverged, Flatline, Missing, Reading, Rule

NAN, INF = math.nan, math.inf
REWARD = Objective("reward", direction="maximize")


def first_verdict(rule: Rule, losses: Sequence[float | None]) -> tuple[int, Verdict] | None:
    """The index of the evaluation at which the rule ends the trial, and the verdict."""
    curve: list[Reading] = []
    for index, loss in enumerate(losses):
        curve.append(Reading(10 * (index + 1), loss))
        if verdict := rule.judge(curve):
            return index, verdict
    return None


@pytest.mark.parametrize(
    ("losses", "stops_at"),
    [
        ([3.0, 2.5, 2.2, 2.1, 2.0, 1.9], None),
        ([3.0, 2.5, 2.5, 2.5, 2.5], 4),
        ([3.0, 2.5, 2.499, 2.498, 2.4976], 4),  # 0.1% of 2.5 is 0.0025: not reached in three
        ([3.0, 2.5, 2.499, 2.498, 2.4974], None),
        ([2.0, 2.1, 2.2, 2.3], 3),  # rising is flat: the best lies behind
        ([2.0, 2.1, 2.2, 1.9, 2.3, 2.3, 2.3], 6),
        ([2.0, 2.0, 2.0], None),  # not yet patience + 1
        ([NAN, 2.0, 2.0, 2.0], None),  # a NaN is not a reading
        ([NAN, 2.0, 2.0, 2.0, 2.0], 4),
        ([None, None, None, None, None], None),
        ([0.0, 0.0, 0.0, 0.0], 3),
        ([-1.0, -1.1, -1.2, -1.3], None),
    ],
)
def test_flatline(losses: list[float | None], stops_at: int | None) -> None:
    found = first_verdict(Flatline(EVAL_LOSS, patience=3, min_delta=0.001), losses)
    assert (found and found[0]) == stops_at
    assert found is None or found[1].reason is Reason.FLATLINE


@pytest.mark.parametrize(
    ("losses", "stops_at"),
    [
        ([3.0, 2.0, 1.0], None),
        ([3.0, 6.0], None),  # exactly twice is not above
        ([3.0, 6.01], 1),
        ([NAN], 0),
        ([3.0, INF], 1),
        ([3.0, -INF], 1),
        ([None, 3.0, 2.0], None),  # missing is another rule's
        ([None, 3.0, 7.0], 2),
        ([0.0, 5.0], None),  # no multiple of nothing
    ],
)
def test_diverged(losses: list[float | None], stops_at: int | None) -> None:
    found = first_verdict(Diverged(EVAL_LOSS, 2.0), losses)
    assert (found and found[0]) == stops_at
    assert found is None or found[1].reason is Reason.DIVERGED


def test_without_a_factor_only_what_is_not_finite_diverges() -> None:
    assert first_verdict(Diverged(EVAL_LOSS, None), [1.0, 1e9]) is None
    assert first_verdict(Diverged(EVAL_LOSS, None), [1.0, NAN]) is not None


@pytest.mark.parametrize(("losses", "stops_at"), [([1.0, NAN, INF], None), ([1.0, None], 1), ([None], 0)])
def test_missing(losses: list[float | None], stops_at: int | None) -> None:
    found = first_verdict(Missing(EVAL_LOSS), losses)
    assert (found and found[0]) == stops_at
    assert found is None or found[1].reason is Reason.ERROR


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flatline(EVAL_LOSS, patience=0), "patience must be at least 1 but got 0."),
        (lambda: Flatline(EVAL_LOSS, min_delta=-0.1), "min_delta cannot be negative but got -0.1."),
        (lambda: Diverged(EVAL_LOSS, 1.0), "factor must be above 1 but got 1.0."),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rewards", "flat", "diverged"),
    [
        ([1.0, 2.0, 2.1, 2.2, 2.3], None, None),
        ([1.0, 2.0, 2.0, 2.0, 2.0], 4, None),
        ([3.0, 2.0, 1.9, 1.8], 3, None),  # falling is flat: the best lies behind
        ([3.0, 1.5], None, None),  # exactly half is not below
        ([3.0, 1.4], None, 1),
        ([-3.0, -9.0], None, None),  # no multiple of what is below nothing
        ([3.0, NAN], None, 1),
    ],
)
def test_a_number_that_rises(rewards: list[float], flat: int | None, diverged: int | None) -> None:
    found = first_verdict(Flatline(REWARD), rewards), first_verdict(Diverged(REWARD), rewards)
    assert tuple(verdict and verdict[0] for verdict in found) == (flat, diverged)


def test_a_verdict_calls_the_number_by_its_name() -> None:
    curve = [Reading(10, 4.0), Reading(20, 1.0)]
    told = [
        Diverged(REWARD).judge(curve),
        Diverged(REWARD).judge([Reading(10, NAN)]),
        Missing(REWARD).judge([Reading(7, None)]),
    ]
    assert [verdict and verdict.message for verdict in told] == [
        "diverged (0.2 times its first reward)",
        "diverged (reward nan)",
        "no reward at 7",
    ]
