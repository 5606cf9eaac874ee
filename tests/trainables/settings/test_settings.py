from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainables.settings import NF4, Settings, Unquantized

MINIMAL = {"model": {"model_name_or_path": "base"}, "data": {"train": "rows.jsonl"}}


def make(**sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({**MINIMAL, **{k: {**MINIMAL.get(k, {}), **v} for k, v in sections.items()}})


def test_defaults_are_the_published_recipe() -> None:
    train = make().train
    assert (train.learning_rate, train.lora_r, train.target_modules) == (3e-4, 16, "all-linear")
    assert (train.max_steps, train.num_train_epochs) == (None, 1.0)


@pytest.mark.parametrize("word", ["nf4", {"kind": "nf4"}, {"kind": "nf4", "double_quant": True}])
def test_quantization_takes_the_bare_word(word: Any) -> None:
    assert make(model={"quantization": word}).model.quantization == NF4()


@pytest.mark.parametrize("word", ["none", None, {"kind": "none"}])
def test_no_quantization(word: Any) -> None:
    assert make(model={"quantization": word}).model.quantization == Unquantized()


def test_no_attention_kernel_is_the_one_that_transformers_takes() -> None:
    """Settings of earlier runs have null."""
    for given in ({}, {"attn_implementation": None}, {"attn_implementation": "auto"}):
        model = make(model=given).model
        assert (model.attn_implementation, model.attention) == ("auto", None)
    assert make(model={"attn_implementation": "eager"}).model.attention == "eager"


def test_steps_replace_epochs_and_survive_a_round_trip() -> None:
    settings = make(train={"max_steps": 5})
    assert settings.train.num_train_epochs is None
    assert Settings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"trust_remote_code": True}}, "needs model_revision"),
        ({"model": {"quantization": "int8"}}, "nf4"),
        ({"train": {"max_steps": 5, "num_train_epochs": 2.0}}, "either max_steps or num_train_epochs"),
        ({"train": {"num_train_epochs": None}}, "both are null"),
        ({"train": {"learning_rate": 0.0}}, "greater than 0"),
        ({"train": {"lora_r": 5, "init_lora_weights": "orthogonal"}}, "even lora_r"),
        ({"train": {"target_modules": []}}, "at least 1 item"),
        ({"train": {"eval_steps": 2.5}}, "must be whole"),
        ({"train": {"learning_rat": 1e-3}}, "Extra inputs"),
        ({"data": {"validation_fraction": 0.0}}, "greater than 0"),
        ({"data": {"format": "text", "assistant_only_loss": True}}, "conversational"),
        ({"data": {"format": "messages", "completion_only_loss": True}}, "prompt and completion"),
        ({"model": {"quantization": "nf4"}, "train": {"init_lora_weights": "pissa"}}, "cannot be used"),
        ({"model": {"quantization": "nf4"}, "train": {"init_lora_weights": "olora"}}, "cannot be used"),
    ],
)
def test_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**sections)


def test_every_field_is_described_in_the_schema() -> None:
    schema = Settings.model_json_schema()
    for name, definition in schema["$defs"].items():
        for key, field in definition["properties"].items():
            if key != "kind":
                assert field.get("description"), f"{name}.{key}"


def test_schema_accepts_the_bare_word() -> None:
    assert '"enum": ["none", "nf4"]' in str(Settings.model_json_schema()).replace("'", '"')
