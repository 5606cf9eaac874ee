"""What driver and program tell each other: evaluation points, reasons."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.contract import Assignment, Reason


def points(shares: tuple[float, ...], max_steps: int) -> tuple[int, ...]:
    return Assignment(0, {}, 0, shares, "").evaluation_steps(max_steps)


def test_evaluation_steps_are_rounded_up_and_taken_once() -> None:
    assert points((0.1, 0.5, 1.0), 100) == (10, 50, 100)
    assert points((0.1, 0.2, 0.3, 1.0), 3) == (1, 3)
    assert points((0.5,), 7) == (4, 7)


@settings(deadline=None)  # a machine under load takes longer
@given(st.lists(st.floats(0.001, 1.0), max_size=20), st.integers(1, 5000))
def test_evaluation_steps_rise_to_the_last(shares: list[float], total: int) -> None:
    steps = points(tuple(shares), total)
    assert steps[-1] == total and steps[0] >= 1
    assert list(steps) == sorted(set(steps))
    assert all(any(step >= share * total - 1e-6 for step in steps) for share in shares)


def test_every_reason_has_a_status() -> None:
    assert {reason.status for reason in Reason} == {"completed", "pruned", "failed", "stopped"}
    assert {reason for reason in Reason if reason.halts_search} == {Reason.FROZEN, Reason.DATA, Reason.CONFIG}
