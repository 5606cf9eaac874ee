from __future__ import annotations

import json
from typing import Any

import pytest

from tests.trainables.models.test_targets import base_of
from trainables.models import reach
from tuner.contract import InputError


def found(name: str) -> dict[str, Any]:
    """What is found out on a base, as it comes back from the process that finds it out."""
    told: dict[str, Any] = json.loads(json.dumps(reach.of(base_of(name))))
    return told


@pytest.fixture(scope="module")
def falcon_h1() -> dict[str, Any]:
    return found("falcon_h1")


@pytest.fixture(scope="module")
def qwen3_moe() -> dict[str, Any]:
    return found("qwen3_moe")


def test_what_all_linear_leaves_out_is_said(falcon_h1: dict[str, Any]) -> None:
    notes = reach.check_values(falcon_h1, "all-linear", ())
    assert notes == (
        "all-linear leaves out 2 layers (out_proj): PEFT refuses them on this base, whose kernel would bypass the "
        "adapter",
    )
    assert reach.check_values(falcon_h1, "attention", ["all-linear"]) == notes
    assert reach.check_values(falcon_h1, "attention", ["mlp"]) == ()


def test_what_peft_refuses_is_said_of_a_list_too(falcon_h1: dict[str, Any]) -> None:
    for refused in ("out_proj", "conv1d"):
        with pytest.raises(InputError, match=f"{refused!r}, which PEFT refuses on this base") as caught:
            reach.check_values(falcon_h1, ["q_proj", refused], ())
        assert caught.value.where == "train.target_modules"
        assert caught.value.remedy.startswith(f"take {refused!r} out of the list")


@pytest.mark.parametrize("value", ["attention", "mlp"])
def test_a_group_that_the_base_has_not_is_refused_where_it_is_written(value: str) -> None:
    mamba = found("mamba")
    with pytest.raises(InputError, match=f"target_modules {value} matches nothing: the base has dt_proj") as caught:
        reach.check_values(mamba, value, ())
    assert caught.value.where == "train.target_modules"
    with pytest.raises(InputError, match=f"target_modules {value} matches nothing") as caught:
        reach.check_values(mamba, "all-linear", ["all-linear", value])
    assert caught.value.where == "search.space"
    assert caught.value.remedy.startswith(f"leave {value} out of the space;")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["q_proj", "query"], "'query' matches nothing"),
        (["lm_head"], "output layer 'lm_head'"),
        (["q_proj", "gate_proj"], "has gate_proj and not up_proj"),
    ],
)
def test_lists_are_checked(qwen3_moe: dict[str, Any], value: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reach.check_values(qwen3_moe, value, ())


def test_what_can_be_used_is_no_error(qwen3_moe: dict[str, Any]) -> None:
    good = ["all-linear", "attention", "mlp", ["q_proj", "down_proj"], ["gate_proj", "up_proj"], ["layers.1.mlp"]]
    assert reach.check_values(qwen3_moe, "all-linear", good) == ()
    assert reach.check_values(qwen3_moe, ["model.layers.0.self_attn.v_proj"], ()) == ()


def test_a_base_that_was_not_looked_at_has_no_wrong_values() -> None:
    assert reach.check_values(None, ["nonsense"], ["mlp"]) == reach.check_values({}, ["nonsense"], ()) == ()
