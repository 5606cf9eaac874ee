"""Means with their intervals, against what is known of them in theory."""

from __future__ import annotations

import random

import pytest

from tuner.results.paired import Rows


def test_an_interval_is_that_of_the_normal_distribution() -> None:
    draw = random.Random(0)
    values = [draw.gauss(3.0, 2.0) for _ in range(400)]
    found = Rows([1.0] * 400).mean(values)
    mean = sum(values) / 400
    spread = (sum((v - mean) ** 2 for v in values) / 399 / 400) ** 0.5
    assert found.value == pytest.approx(mean)
    assert found.low == pytest.approx(mean - 1.96 * spread, abs=0.15 * spread)
    assert found.high == pytest.approx(mean + 1.96 * spread, abs=0.15 * spread)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw, held = random.Random(1), 0
    for _ in range(100):
        found = Rows([1.0] * 60).mean([draw.random() for _ in range(60)])
        assert found.low is not None and found.high is not None
        held += found.low <= 0.5 <= found.high
    assert 88 <= held <= 99


def test_rows_count_by_their_weights() -> None:
    found = Rows([3, 1]).mean([1.0, 5.0])
    assert found.value == 2.0 and found.low == 1.0 and found.high == 5.0


def test_the_same_rows_are_compared() -> None:
    """Rows differ by 10, candidates by 0.1 in each: only a paired comparison sees it."""
    base = [10.0 * at for at in range(50)]
    better = [value + 0.1 for value in base]
    rows = Rows([1.0] * 50)
    found = rows.compare(better, base)
    assert found.difference.value == pytest.approx(0.1) and found.difference.excludes_zero
    assert (found.higher, found.lower, found.equal) == (50, 0, 0)
    apart, alone = rows.mean(better), rows.mean(base)
    assert apart.low is not None and alone.high is not None and apart.low < alone.high
    none = rows.compare(base, base)
    assert not none.difference.excludes_zero and none.equal == 50


def test_one_row_has_no_interval() -> None:
    found = Rows([2.0]).mean([4.0])
    assert (found.value, found.low, found.high) == (4.0, None, None) and not found.excludes_zero


def test_many_rows_take_bounded_memory() -> None:
    found = Rows([1.0] * 30_000).mean([float(at % 2) for at in range(30_000)])
    assert found.low is not None and found.high is not None
    assert 0.49 < found.low < 0.5 < found.high < 0.51
