"""Amounts as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from tuner.config import amounts, load_experiment
from tuner.contract import InputError


@pytest.mark.parametrize(
    ("read", "written", "means"),
    [
        (amounts.count, "20M", 20_000_000),
        (amounts.count, "1.5 B", 1_500_000_000),
        (amounts.count, 300, 300),
        (amounts.count, 2e7, 20_000_000),
        (amounts.seconds, "90 s", 90),
        (amounts.seconds, "90min", 5400),
        (amounts.seconds, "1h 30min", 5400),
        (amounts.seconds, " 2d ", 172_800),
        (amounts.share, "0.5%", 0.005),
        (amounts.share, 0.25, 0.25),
        (amounts.span, 20, 20),
        (amounts.span, "1h", "1h"),
    ],
)
def test_what_is_written_means(read: Callable[[Any], Any], written: Any, means: Any) -> None:
    assert read(written) == means


@pytest.mark.parametrize(
    ("read", "written"),
    [
        *(
            (amounts.count, one)
            for one in ("20X", "", "M", "-3", 0, -1, True, None, float("inf"), float("nan"), "9e30")
        ),
        *((amounts.seconds, one) for one in (90, "90", "", "h", "1 year", "0s", "2h x", "9e30 d", True)),
        *((amounts.share, one) for one in ("50", "0%", "100%", 0, 1, 2.0, "a%", True, float("nan"))),
        *((amounts.span, one) for one in (0, -1, 2.5, True, "20", "soon", None)),
    ],
)
def test_what_is_none(read: Callable[[Any], Any], written: Any) -> None:
    with pytest.raises(PydanticCustomError):
        read(written)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("search.budget.tokens=20X", "search.budget.tokens: got '20X' .*\n.*expected: a number above 0, with k, M"),
        ("search.budget.wall_time=90", "search.budget.wall_time: got 90\n.*expected: a time with its unit"),
        ("search.budget.until={gain_below: 2, next: 1h}", "search.budget.until.gain_below: got 2\n.*0.5%"),
        ("search.budget.until.gain_below=1%", "`search.budget.until.next` is missing"),
        ("search.budget.hours=1", "unknown key `hours` in `search.budget`"),
        ("search.budget.gpu_hours=-1", "search.budget.gpu_hours: got -1"),
        ("search.budget.money=5", "search.budget.money cannot be counted without a price\n.*run.price_per_gpu_hour"),
        ("search.budget=3", "search.budget: got 3\n.*a mapping with tokens"),
    ],
)
def test_a_budget_that_cannot_be_is_the_users_error(setting: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_experiment(None, [setting])
    import re

    assert re.search(told, str(caught.value))
