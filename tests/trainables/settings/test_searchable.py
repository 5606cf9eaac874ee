from __future__ import annotations

import pytest

from trainables.settings import PARAMETERS, REFUSED, Settings, with_params
from tuner.contract import InputError

SETTINGS = Settings.model_validate(
    {"model": {"model_name_or_path": "base", "quantization": "nf4"}, "data": {"train": "rows.jsonl"}}
)


def test_every_parameter_is_a_field_of_the_recipe() -> None:
    for name, parameter in PARAMETERS.items():
        section, _, key = parameter.path.partition(".")
        assert key == name and (section == "train" or name == "vision")
        assert key in type(getattr(SETTINGS, section)).model_fields


def test_nothing_is_both_searchable_and_refused() -> None:
    assert not set(PARAMETERS) & set(REFUSED)


def test_exactly_one_parameter_is_the_warm_up() -> None:
    assert [name for name, parameter in PARAMETERS.items() if parameter.warmup] == ["warmup_ratio"]


def test_short_and_dotted_names_are_the_same() -> None:
    short = with_params(SETTINGS, {"lora_r": 8, "target_modules": ("q_proj", "v_proj")})
    dotted = with_params(SETTINGS, {"train.lora_r": 8, "train.target_modules": ["q_proj", "v_proj"]})
    assert short == dotted
    assert short.train.lora_r == 8
    assert SETTINGS.train.lora_r == 16


def test_alpha_follows_its_mode() -> None:
    assert with_params(SETTINGS, {"lora_r": 8, "lora_alpha_mode": "2r"}).train.alpha == 16
    assert with_params(SETTINGS, {"lora_r": 8}).train.alpha == 32


def test_steps_and_epochs_replace_each_other() -> None:
    steps = with_params(SETTINGS, {"max_steps": 5})
    assert (steps.train.max_steps, steps.train.num_train_epochs) == (5, None)
    epochs = with_params(steps, {"num_train_epochs": 2.0})
    assert (epochs.train.max_steps, epochs.train.num_train_epochs) == (None, 2.0)


@pytest.mark.parametrize("name", ["max_length", "data.max_length", "packing", "lora_alpha", "validation"])
def test_what_changes_the_loss_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match="cannot be searched"):
        with_params(SETTINGS, {name: 1})


def test_the_batch_the_user_means_is_named() -> None:
    with pytest.raises(InputError, match="effective_batch_size"):
        with_params(SETTINGS, {"per_device_train_batch_size": 4})


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        with_params(SETTINGS, {"learning_rat": 1e-3})
    assert caught.value.remedy == "learning_rate"


def test_a_draw_is_validated_as_a_whole() -> None:
    with pytest.raises(InputError, match="cannot be used with"):
        with_params(SETTINGS, {"init_lora_weights": "pissa"})
    with pytest.raises(InputError) as caught:
        with_params(SETTINGS, {"learning_rate": -1.0})
    assert caught.value.where == "train.learning_rate"
