from __future__ import annotations

import json
from typing import Any

import pytest

from tests.trainables.models.test_targets import base_of
from tests.trainables.packed.bench import Make
from trainables.models import lora, reach, tensor_adapters
from trainables.settings import Settings
from trainables.settings.train import TrainSettings
from tuner.contract import Fault, InputError

REFUSED: list[dict[str, Any]] = [
    {"lora_dropout": 0.05},
    {"use_dora": True},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "olora"},
    {"init_lora_weights": "orthogonal"},
]
TAKEN: list[dict[str, Any]] = [{}, {"lora_alpha_mode": "rslora"}, {"init_lora_weights": "gaussian"}]


@pytest.fixture(scope="module")
def qwen3_moe() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(reach.of(base_of("qwen3_moe"))))
    return told


@pytest.mark.parametrize("values", [*REFUSED, *TAKEN], ids=str)
@pytest.mark.parametrize(("name", "target"), [("gpt_oss", "mlp"), ("qwen3_moe", ["down_proj", "q_proj"])])
def test_a_trial_is_refused_where_peft_fails_and_nowhere_else(
    sft_settings: Make, name: str, target: Any, values: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model

    def settings(target: Any) -> Settings:
        return Settings.model_validate(sft_settings(train={"target_modules": target, **values}))

    model = base_of(name)
    if values in TAKEN:
        assert get_peft_model(model, lora.lora_config(settings(target), model)) is not None
        return
    with pytest.raises(Fault, match="one tensor, and PEFT puts no such adapter on a tensor") as caught:
        lora.lora_config(settings(target), model)
    assert not caught.value.reason.halts_search and next(iter(values)) in caught.value.message
    with pytest.raises((ValueError, AttributeError)):
        get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **lora.targeted(model, target), **values))
    assert lora.lora_config(settings("attention"), model) is not None


@pytest.mark.parametrize("values", REFUSED, ids=str)
@pytest.mark.parametrize("target", ["all-linear", "mlp", ["q_proj", "down_proj", "gate_proj", "up_proj"]], ids=str)
def test_a_recipe_is_refused_before_the_first_trial(
    qwen3_moe: dict[str, Any], target: Any, values: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=next(iter(values))) as caught:
        reach.check_experts(qwen3_moe, TrainSettings(target_modules=target, **values))
    assert caught.value.where == "train" and "attention" in caught.value.remedy
    reach.check_experts(qwen3_moe, TrainSettings(target_modules=["q_proj"], **values))
    reach.check_experts(qwen3_moe, TrainSettings(target_modules=target))


def test_experts_that_are_layers_take_all(qwen3_moe: dict[str, Any]) -> None:
    dense = json.loads(json.dumps(reach.of(base_of("llama"))))
    assert dense["tensors"] == [] and sorted(qwen3_moe["tensors"]) == ["all-linear", "mlp"]
    reach.check_experts(dense, TrainSettings(use_dora=True, lora_dropout=0.1))
    reach.check_experts(None, TrainSettings(use_dora=True))
    reach.check_experts({}, TrainSettings(use_dora=True))


def test_peft_is_asked() -> None:
    assert tensor_adapters.refused() == (
        "lora_dropout", "use_dora", "init_lora_weights orthogonal", "init_lora_weights pissa",
        "init_lora_weights olora",
    )  # fmt: skip
