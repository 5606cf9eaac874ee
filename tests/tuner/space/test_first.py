"""The points that a space names to be tried first."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.sft import SFT
from tuner.config import load_experiment
from tuner.contract import InputError
from tuner.driver.plan import Plan, make_plan
from tuner.report.lines import plain
from tuner.report.plan import plan_report
from tuner.space import Space, load_space
from tuner.space.first import laid_over

RATE = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}


def space(first: Any) -> dict[str, Any]:
    rank = {"type": "choice", "values": [8, 16, 64]}
    dora = {"type": "choice", "values": [False, True], "when": {"lora_r": [8, 16]}}
    return {"parameters": {"learning_rate": RATE, "lora_r": rank, "use_dora": dora}, "first": first}


def plan_of(*overrides: str, first: Any = ()) -> Plan:
    """A search with the toy; its recipe has learning_rate 1e-3 and batch_size 8."""
    own = {"parameters": {"learning_rate": RATE, "batch_size": {"type": "choice", "values": [8, 16, 64]}}}
    flags = {"run.program": "tests.programs.toy:Toy", "search.space": {**own, "first": list(first)}}
    return make_plan(load_experiment(None, list(overrides), flags))


def test_points_have_the_recipes_values_for_what_they_leave_out() -> None:
    plan = plan_of(first=[{"learning_rate": 3e-4}, {"train.batch_size": 64}])
    assert plan.first == [{"learning_rate": 3e-4, "batch_size": 8}, {"learning_rate": 1e-3, "batch_size": 64}]
    told = plain(plan_report(plan, 120))
    assert "first  trial 1: learning_rate 3e-4; trial 2: batch_size 64\n" in told
    assert plan.to_dict()["first"] == plan.first
    assert plan.space.to_dict()["first"] == [{"learning_rate": 3e-4}, {"batch_size": 64}]


def test_a_value_whose_condition_a_point_does_not_meet_is_left_out() -> None:
    found = load_space(space([{"lora_r": 64}, {"lora_r": 16}]), SFT)
    assert isinstance(found, Space)
    recipe = {"learning_rate": 3e-4, "lora_r": 8, "use_dora": True}
    assert laid_over(recipe, found.first, found.parameters) == [
        {"learning_rate": 3e-4, "lora_r": 64},
        {"learning_rate": 3e-4, "lora_r": 16, "use_dora": True},
    ]


def test_none_is_the_recipe_and_none_comes_twice_or_too_late() -> None:
    points = [{"batch_size": 8}, {"batch_size": 64}, {"batch_size": 64, "learning_rate": 1e-3}, {"batch_size": 16}]
    assert [point["batch_size"] for point in plan_of(first=points).first] == [64, 16]
    assert [point["batch_size"] for point in plan_of("search.num_trials=2", first=points).first] == [64]
    assert not plan_of("search.num_trials=1", first=points).first


@pytest.mark.parametrize("overrides", [["search.priors=none"], ["search.sampler=random"], ["search.sampler=qmc"]])
def test_they_are_left_out(overrides: list[str]) -> None:
    plan = plan_of(*overrides, first=[{"batch_size": 64}])
    assert not plan.first and "\nfirst " not in plain(plan_report(plan, 120))


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ([{"lora_r": 12}], r"first\[0\].lora_r: 12 is outside the space\n.*8 \| 16 \| 64"),
        ([{}, {"learning_rate": 1.0}], r"first\[0\]: got .*\n(.*\n)*.*first\[1\].learning_rate: 1.0 is outside"),
        ([{"lora_rank": 8}], r"`lora_rank` is not searched in this space; did you mean `lora_r`"),
        ([{"weight_decay": 0.1}], r"`weight_decay` is not searched in this space\n.*one of learning_rate"),
        (3, r"first: got .*\n.*a list of points"),
        ([3], r"first\[0\]: got 3\n.*a list of points"),
    ],
)
def test_what_is_no_point_of_the_space_is_refused(first: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_space(space(first), SFT)


@pytest.mark.parametrize("name", ["lora", "lora_extended", "qlora"])
def test_the_lora_spaces_name_what_sweeps_found(name: str) -> None:
    found = load_space(name, SFT)
    assert isinstance(found, Space)
    assert found.first == ({"learning_rate": 1e-3, "lora_r": 64}, {"learning_rate": 3e-4, "lora_r": 64})


def test_the_embedded_search_names_none() -> None:
    assert not make_plan(load_experiment()).first
