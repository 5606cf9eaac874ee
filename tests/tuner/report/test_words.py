from __future__ import annotations

import math
from typing import Any

import pytest

from tuner.report import formatting as words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.9e-3, "2.9e-3"),
        (3e-4, "3.0e-4"),
        (1e-5, "1.0e-5"),
        (0.05, "0.05"),
        (0.0, "0.0"),
        (1.0, "1.0"),
        (12.5, "12.5"),
        (123456.0, "1.2e5"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (64, "64"),
        (True, "true"),
        (None, "none"),
        ("2r", "2r"),
        (["q_proj", "v_proj"], "q_proj+v_proj"),
    ],
)
def test_values_are_short(value: Any, text: str) -> None:
    assert words.value(value) == text


def test_a_column_of_rates_reads_alike() -> None:
    assert [words.value(x, scientific=True) for x in (3e-4, 0.041, 0.0)] == ["3.0e-4", "4.1e-2", "0.0"]


@pytest.mark.parametrize(
    ("value", "text"), [(3e-4, "3e-4"), (0.00123457, "1.23457e-3"), (0.05, "0.05"), (64, "64"), ("2r", "2r")]
)
def test_exact_values_can_be_typed_in_again(value: Any, text: str) -> None:
    assert words.exact(value) == text
    assert not isinstance(value, float) or math.isclose(float(text), value, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (4.3119, "4.312"),
        (0.04312, "0.04312"),
        (0.0, "0.000"),
        (12345.6, "1.2e4"),
        (2e-5, "2.0e-5"),
        (None, "-"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_losses(loss: float | None, text: str) -> None:
    assert words.measured(loss) == text


def test_trainable_share() -> None:
    assert words.trainable(161_480_704, 8_190_735_360) == "161.5M of 8.2B, 2.0%"
    assert words.trainable(0, 1000) == "0 of 1.0k, 0.0%"
    assert words.trainable(400, 8_190_735_360) == "400 of 8.2B, <0.001%"


def test_counts_never_round_to_a_thousand_of_a_unit() -> None:
    assert [words.count(n) for n in (950, 1500, 999_960, 8_352_000_000)] == ["950", "1.5k", "1.0M", "8.4B"]
    assert [words.size(n) for n in (12, 1_210_000)] == ["12 B", "1.2 MB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (41, "41 s"), (60, "1 min"), (72, "1 min 12 s"), (7500, "2 h 5 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "5 s"), (43, "45 s"), (75, "1 min"), (95, "1 min 30 s"), (700, "12 min"), (9000, "2.5 h"), (90_000, "25 h")],
)
def test_estimates_are_coarse(seconds: float, text: str) -> None:
    assert words.about(seconds) == text


def test_a_share_that_is_more_than_nothing_is_not_shown_as_nothing() -> None:
    assert words.whole_percent(0.001) == "<1%"
    assert words.whole_percent(0.0) == "0%"
    assert words.percent(0.0000123) == "0.001%"
