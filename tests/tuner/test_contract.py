"""The seam: evaluation points, programs by name, errors that travel."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.contract import Assignment, Fault, InputError, Program, Reason, load_program


def points(shares: tuple[float, ...], max_steps: int) -> tuple[int, ...]:
    return Assignment(0, {}, 0, shares, "").evaluation_steps(max_steps)


def test_evaluation_steps_are_rounded_up_and_taken_once() -> None:
    assert points((0.1, 0.5, 1.0), 100) == (10, 50, 100)
    assert points((0.1, 0.2, 0.3, 1.0), 3) == (1, 3)
    assert points((0.5,), 7) == (4, 7)


@given(st.lists(st.floats(0.001, 1.0), max_size=20), st.integers(1, 5000))
def test_evaluation_steps_rise_to_the_last(shares: list[float], total: int) -> None:
    steps = points(tuple(shares), total)
    assert steps[-1] == total and steps[0] >= 1
    assert list(steps) == sorted(set(steps))
    assert all(any(step >= share * total - 1e-6 for step in steps) for share in shares)


@pytest.mark.parametrize("name", ["sft", "trainables.sft:SFT", "tests.programs.toy:Toy"])
def test_a_program_is_found_by_name(name: str) -> None:
    program = load_program(name)
    assert issubclass(program, object) and all(hasattr(program, part) for part in ("Settings", "PARAMETERS", "budget"))
    assert isinstance(program.__new__(program), Program)


@pytest.mark.parametrize("name", ["sfft", "no.such:Thing", "trainables.sft:Nothing", ":", ""])
def test_a_program_that_is_not_there_is_the_users_error(name: str) -> None:
    with pytest.raises(InputError, match="no program"):
        load_program(name)


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError("broken", where="a.yaml:3", expected="whole", remedy="mend it")))
    assert str(error) == "a.yaml:3: broken\n  expected: whole\n  try: mend it"
    fault = pickle.loads(pickle.dumps(Fault(Reason.FROZEN, "nothing moves", "look here")))
    assert (fault.verdict.reason, fault.verdict.message, fault.verdict.remedy) == (
        Reason.FROZEN, "nothing moves", "look here",
    )  # fmt: skip


def test_every_reason_has_a_status() -> None:
    assert {reason.status for reason in Reason} == {"completed", "pruned", "failed", "stopped"}
    assert {reason for reason in Reason if reason.halts_search} == {Reason.FROZEN, Reason.DATA, Reason.CONFIG}
