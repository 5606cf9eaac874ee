"""Calls that are made at most once an interval."""

from __future__ import annotations

import pytest

from tuner.driver.periodic import Periodic


def test_it_calls_at_once_and_then_no_more_often_than_it_may() -> None:
    times = iter((100.0, 100.4, 100.9, 101.0, 101.5, 104.2, 104.9, 105.2))
    calls: list[None] = []
    counts: list[int] = []
    periodic = Periodic(1.0, lambda: calls.append(None), clock=lambda: next(times))
    for _ in range(8):
        periodic()
        counts.append(len(calls))
    assert counts == [1, 1, 1, 2, 2, 3, 3, 4]


def test_a_call_that_fails_is_made_again_in_time() -> None:
    times = iter((0.0, 0.5, 1.0))

    def fail() -> None:
        raise OSError

    periodic = Periodic(1.0, fail, clock=lambda: next(times))
    with pytest.raises(OSError):
        periodic()
    periodic()
    with pytest.raises(OSError):
        periodic()
