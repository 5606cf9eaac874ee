"""What becomes of the settings of a longer run, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.sft import SFT
from tuner.contract import InputError


def settings(**train: Any) -> Any:
    written = {"model": {"model_name_or_path": "org/base"}, "data": {"train": "org/rows"}, "train": train}
    return SFT.Settings.model_validate(written)


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"max_steps": 100, "learning_rate": 2e-3, "warmup_ratio": 0.03},
         "3 passes over the rows in place of 100 steps; the learning rate 0.002 stays the peak and falls (linear) over "
         "the new length; the warm-up (3% of it) and the validations (every 10% of it) scale with it"),
        ({"num_train_epochs": 1, "warmup_ratio": 0.0, "lr_scheduler_type": "cosine", "eval_steps": 50},
         "3 passes over the rows in place of 1 pass over the rows; the learning rate 0.0003 stays the peak and falls "
         "(cosine) over the new length; a validation every 50 steps stays"),
        ({"max_steps": 40, "lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.1},
         "3 passes over the rows in place of 40 steps; the learning rate 0.0003 stays the rate to the end; the warm-up "
         "(10% of it) and the validations (every 10% of it) scale with it"),
        ({"max_steps": 40, "lr_scheduler_type": "constant"},
         "3 passes over the rows in place of 40 steps; the learning rate 0.0003 stays the rate to the end; the "
         "validations (every 10% of it) scale with it"),
    ],
)  # fmt: skip
def test_a_length_in_passes(train: dict[str, Any], told: str) -> None:
    again = SFT.retraining(settings(**train), epochs=3)
    assert again.changes == {"train.max_steps": None, "train.num_train_epochs": 3.0}
    assert again.notes == (told,)


def test_what_is_not_asked_for_stays() -> None:
    again = SFT.retraining(settings(max_steps=100))
    assert again.changes == {} and "the length stays 100 steps, whatever the rows" in again.notes[0]
    assert SFT.retraining(settings(num_train_epochs=2)).notes == ()


def test_on_from_an_adapter() -> None:
    again = SFT.retraining(settings(), epochs=0.5, adapter="/runs/first/best")
    assert again.changes["train.init_adapter"] == "/runs/first/best"
    assert again.changes["train.num_train_epochs"] == 0.5 and len(again.notes) == 2
    with pytest.raises(InputError, match="belongs to the base that it changed"):
        SFT.retraining(settings(init_lora_weights="pissa"), adapter="/runs/first/best")


@pytest.mark.parametrize("epochs", [0.0, -1.0, float("nan"), float("inf"), 1e6])
def test_a_length_that_is_none(epochs: float) -> None:
    with pytest.raises(InputError, match="no number of passes"):
        SFT.retraining(settings(), epochs=epochs)
