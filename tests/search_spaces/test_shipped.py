"""Draws from every shipped space: each point is a valid LoraConfig and SFTConfig for the real program."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from trainables.sft import SFT
from tuner.config import read_space, shipped_spaces
from tuner.space import Space, load_space, recipe_values, with_params
from tuner.space.settings import refused_by_settings

optuna.logging.set_verbosity(optuna.logging.WARNING)

NAMES = sorted(shipped_spaces())
DRAWS = 200


def space_and_settings(name: str) -> tuple[Space, Any]:
    space = load_space(name, SFT)
    assert isinstance(space, Space)
    data: dict[str, Any] = {"model": {"model_name_or_path": "org/base"}, "data": {"train": "org/rows"}}
    for key, value in space.settings.items():
        section, _, setting = key.partition(".")
        data.setdefault(section, {})[setting] = value
    return space, SFT.Settings.model_validate(data)


def points(space: Space, count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_the_promised_spaces_are_there() -> None:
    assert {"lora", "qlora", "learning_rate"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_opens_with_its_command_and_says_what_it_is(name: str) -> None:
    source = read_space(name, shipped_spaces()[name].parent)
    first = source.text.splitlines()[0]
    assert first.startswith(f"# python -m tuner search --space {name} ")
    space, _ = space_and_settings(name)
    assert space.name == name
    assert space.description


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_its_reason_above_it(name: str) -> None:
    source = read_space(name, shipped_spaces()[name].parent)
    lines = source.text.splitlines()
    for key in (source.data or {})["parameters"]:
        line = next(number for number, text in enumerate(lines) if text.startswith(f"  {key}:"))
        assert lines[line - 1].startswith("  # "), key


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_valid_settings(name: str) -> None:
    space, settings = space_and_settings(name)
    assert refused_by_settings(space, settings, SFT, read_space(name, shipped_spaces()[name].parent)) == []
    for point in points(space, DRAWS):
        changed = recipe_values(with_params(settings, point, SFT), SFT)
        assert {key: changed[key] for key in point} == point


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_lies_inside(name: str) -> None:
    space, settings = space_and_settings(name)
    recipe = space.recipe(recipe_values(settings, SFT))
    assert recipe.notes == ()
    assert set(recipe.params) >= {"learning_rate"}
