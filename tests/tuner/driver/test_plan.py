"""The objectives that a program declares are checked before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.programs import measuring
from tuner.config import load_experiment
from tuner.contract import EVAL_LOSS, InputError, Objective
from tuner.driver.plan import Plan, make_plan

SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}


def plan_of(program: str) -> Plan:
    return make_plan(load_experiment(None, (), {"run.program": program, "search.space": SPACE}))


def test_a_plan_has_the_objectives_of_the_program() -> None:
    assert plan_of("tests.programs.measuring:TwoNumbers").objectives == (measuring.ACCURACY, measuring.LENGTH)
    assert plan_of("tests.programs.toy:Toy").objectives == (EVAL_LOSS,)


def test_a_sampler_of_one_number_refuses_what_is_measured_at_the_end() -> None:
    program = "tests.programs.measuring:AtTheEnd"
    assert plan_of(program).objectives == (measuring.QUALITY, EVAL_LOSS)
    with pytest.raises(InputError, match="models one number") as caught:
        make_plan(load_experiment(None, (), {"run.program": program, "search.sampler": "rungs", "search.space": SPACE}))
    assert caught.value.where == "search.sampler"


@pytest.mark.parametrize("named", [(), "accuracy", (Objective("a"), Objective("a"))])
def test_objectives_that_cannot_be_searched_by_are_the_users_error(named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.Rising, "OBJECTIVES", named)
    with pytest.raises(InputError, match=r"measuring:Rising names no objectives .*OBJECTIVES must") as caught:
        plan_of("tests.programs.measuring:Rising")
    assert caught.value.where == "run.program"
