"""A person's own point: which parameters it fixes, and which points are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.programs.toy import ToySettings
from trainables.sft import SFT
from tuner.contract import InputError, load_program
from tuner.space import load_space
from tuner.space.own import own_point

TOY = load_program("tests.programs.toy:Toy")
SPACE = load_space(
    {
        "name": "mine",
        "parameters": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "lora_r": {"type": "choice", "values": [8, 16, 64]},
            "use_dora": {"type": "choice", "values": [False, True], "when": {"lora_r": [8, 16]}},
            "target_modules": {"type": "choice", "values": ["all-linear", ["q_proj", "v_proj"]]},
        },
    },
    SFT,
)
SETTINGS = SFT.Settings.model_validate({"model": {"model_name_or_path": "a"}, "data": {"train": "b"}})


def point(given: dict[str, Any], like: dict[str, Any] | None = None) -> dict[str, Any]:
    return own_point(SPACE, given, like or {}, SETTINGS, SFT)


@pytest.mark.parametrize(
    ("given", "like", "expected"),
    [
        ({"lora_r": 64}, {}, {"lora_r": 64}),
        ({"train.lora_r": 64}, {}, {"lora_r": 64}),
        ({"target_modules": ["q_proj", "v_proj"]}, {}, {"target_modules": ["q_proj", "v_proj"]}),
        ({"lora_r": 8, "use_dora": True}, {}, {"lora_r": 8, "use_dora": True}),
        ({"use_dora": True}, {"lora_r": 8}, {"lora_r": 8, "use_dora": True}),
        # Values that depended on the replaced one are not taken over
        ({"lora_r": 64}, {"learning_rate": 1e-3, "lora_r": 8, "use_dora": True}, {"learning_rate": 1e-3, "lora_r": 64}),
        ({}, {"lora_r": 8}, {"lora_r": 8}),
    ],
)
def test_what_a_suggestion_fixes(given: dict[str, Any], like: dict[str, Any], expected: dict[str, Any]) -> None:
    assert point(given, like) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lora_R": 64}, "the space mine has no parameter `lora_R`; did you mean `lora_r`?"),
        ({"warmup_ratio": 0.1}, "the space mine has no parameter `warmup_ratio`"),
        ({"lora_r": 32}, "lora_r: 32 is outside the space"),
        ({"learning_rate": 1.0}, "learning_rate: 1 is outside the space"),
        ({"learning_rate": "fast"}, "learning_rate: fast is outside the space"),
        ({"use_dora": True}, "`use_dora` is searched only where lora_r = 8 | 16"),
        ({"use_dora": True, "lora_r": 64}, "`use_dora` is searched only where lora_r = 8 | 16"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        point(given)
    assert message in str(caught.value)


def test_a_function_is_asked_what_it_draws() -> None:
    space = load_space("tests.tuner.space.test_own:drawn", TOY)
    settings = ToySettings()
    assert own_point(space, {"learning_rate": 0.1}, {"batch_size": 4}, settings, TOY) == {
        "learning_rate": 0.1,
        "batch_size": 4,
    }
    for given, message in (
        ({"learning_rate": 0.9}, "learning_rate: 0.9 is outside the space"),
        ({"batch": 4}, "has no parameter `batch`"),
        ({"learning_rate": 0.4, "batch_size": 4}, "has no parameter `batch_size`"),
        ({"learning_rate": 0.3}, "raised ZeroDivisionError: not this one"),
    ):
        with pytest.raises(InputError, match=message):
            own_point(space, given, {}, settings, TOY)


def drawn(trial: Any) -> dict[str, Any]:
    rate = trial.suggest_float("learning_rate", 1e-4, 0.5, log=True)
    if rate == 0.3:
        raise ZeroDivisionError("not this one")
    return {"learning_rate": rate, **({} if rate > 0.35 else {"batch_size": trial.suggest_int("batch_size", 1, 64)})}
