"""Drawing from a space: ranges, choices, conditions, the recipe as a point, the grid."""

from __future__ import annotations

import math
import pickle
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.config.programs import Tiny
from tuner.contract import InputError
from tuner.space import Choice, Float, FunctionSpace, Int, Space, load_space
from tuner.space.parameters import shown

optuna.logging.set_verbosity(optuna.logging.WARNING)


def space_of(**parameters: dict[str, Any]) -> Space:
    space = load_space({"parameters": parameters}, Tiny)
    assert isinstance(space, Space)
    return space


RATE = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
RANK = {"type": "choice", "values": [4, 8, 16]}
TARGETS = {"type": "choice", "values": ["all-linear", ["q_proj", "v_proj"], ["o_proj"]]}
DORA = {"type": "choice", "values": [True, False], "when": {"lora_r": [4, 8]}}


def draws(space: Any, count: int, sampler: optuna.samplers.BaseSampler | None = None) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=sampler or optuna.samplers.RandomSampler(seed=0))
    points = []
    for _ in range(count):
        trial = study.ask()
        points.append(space.suggest(trial))
        study.tell(trial, 1.0)
    return points


def test_every_kind_draws_inside_its_range() -> None:
    space = space_of(
        learning_rate=RATE,
        lora_r={"type": "int", "low": 4, "high": 64, "log": True},
        max_steps={"type": "int", "low": 10, "high": 100, "step": 30},
        warmup_ratio={"type": "float", "low": 0.0, "high": 0.1, "step": 0.05},
        target_modules=TARGETS,
    )
    points = draws(space, 300)
    for name, parameter in space.parameters.items():
        assert all(parameter.contains(point[name]) for point in points), name
    assert {point["max_steps"] for point in points} == {10, 40, 70, 100}
    assert {round(point["warmup_ratio"], 9) for point in points} == {0.0, 0.05, 0.1}
    assert sum(point["learning_rate"] < math.sqrt(1e-5 * 1e-2) for point in points) == pytest.approx(150, abs=40)


def test_lists_are_one_value_and_a_label_to_optuna() -> None:
    space = space_of(target_modules=TARGETS)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    study.enqueue_trial(space.encode({"target_modules": ["q_proj", "v_proj"]}))
    trial = study.ask()
    point = space.suggest(trial)
    assert trial.params == {"target_modules": "q_proj+v_proj"}
    assert point == {"target_modules": ["q_proj", "v_proj"]}
    assert space.decode(trial.params) == point
    point["target_modules"].append("mine")
    assert space.parameters["target_modules"].values() == ("all-linear", ["q_proj", "v_proj"], ["o_proj"])


def test_a_condition_draws_the_parent_first_whatever_the_order() -> None:
    space = space_of(use_dora=DORA, learning_rate=RATE, lora_r=RANK)
    assert space.order == ("learning_rate", "lora_r", "use_dora")
    points = draws(space, 100)
    assert all(("use_dora" in point) == (point["lora_r"] in (4, 8)) for point in points)
    assert {point["lora_r"] for point in points} == {4, 8, 16}


def test_conditions_chain_and_compare_whole_lists() -> None:
    space = space_of(
        target_modules=TARGETS,
        use_dora={**DORA, "when": {"train.target_modules": ["q_proj", "v_proj"]}},
        warmup_ratio={"type": "float", "low": 0.0, "high": 0.1, "when": {"use_dora": True}},
    )
    for point in draws(space, 100):
        assert ("use_dora" in point) == (point["target_modules"] == ["q_proj", "v_proj"])
        assert ("warmup_ratio" in point) == (point.get("use_dora") is True)


def test_grouped_tpe_copes_with_conditions() -> None:
    space = space_of(use_dora=DORA, learning_rate=RATE, lora_r=RANK)
    sampler = optuna.samplers.TPESampler(seed=0, group=True, multivariate=True, n_startup_trials=5)
    assert len(draws(space, 30, sampler)) == 30


def test_dotted_names_are_short_names() -> None:
    space = load_space({"parameters": {"train.learning_rate": RATE, "train.lora_r": RANK}}, Tiny)
    assert list(space.parameters) == ["learning_rate", "lora_r"]
    with pytest.raises(InputError, match="the same parameter"):
        load_space({"parameters": {"train.lora_r": RANK, "lora_r": RANK}}, Tiny)


def test_the_recipe_is_a_point_of_active_parameters() -> None:
    space = space_of(learning_rate=RATE, lora_r=RANK, use_dora=DORA, target_modules=TARGETS)
    values = {"learning_rate": 3e-4, "lora_r": 16, "use_dora": False, "target_modules": "all-linear", "warmup_ratio": 0}
    recipe = space.recipe(values)
    assert recipe.params == {"learning_rate": 3e-4, "lora_r": 16, "target_modules": "all-linear"}
    assert recipe.notes == ()
    study = optuna.create_study()
    study.enqueue_trial(space.encode(recipe.params))
    assert space.suggest(study.ask()) == recipe.params


def test_what_the_space_could_never_draw_is_left_out_of_the_recipe_and_said() -> None:
    space = space_of(learning_rate=RATE, lora_r=RANK, use_dora=DORA)
    recipe = space.recipe({"learning_rate": 0.5, "lora_r": 12, "use_dora": False})
    assert recipe.params == {}
    assert recipe.notes == (
        "the recipe's learning_rate 0.5 is outside the space (1e-5 to 0.01, log)",
        "the recipe's lora_r 12 is outside the space (4 | 8 | 16)",
    )
    trial = optuna.create_study().ask()
    assert space.suggest(trial, only=recipe.params) == {}
    assert trial.params == {}


def test_true_is_not_one() -> None:
    assert not Choice(values=[1, 2]).contains(True)
    assert not Choice(values=[True, False]).contains(1)
    assert not Int(low=0, high=3).contains(True)
    assert not Float(low=0, high=3).contains(True)


def test_upper_bound() -> None:
    space = space_of(
        lora_r=RANK, warmup_ratio={"type": "float", "low": 0.0, "high": 0.1}, target_modules=TARGETS, use_dora=DORA
    )
    assert space.upper_bound("warmup_ratio") == 0.1
    assert space.upper_bound("lora_r") == 16
    assert space.upper_bound("target_modules") is None
    assert space.upper_bound("use_dora") is None
    assert space.upper_bound("learning_rate") is None


def test_size_and_grid() -> None:
    finite = space_of(
        lora_r=RANK, target_modules=TARGETS, warmup_ratio={"type": "float", "low": 0, "high": 0.1, "step": 0.05}
    )
    assert (finite.is_finite, finite.size) == (True, 27)
    assert len(list(finite.points())) == 27
    grid = finite.grid()
    assert {point["target_modules"] for point in grid} == {"all-linear", "q_proj+v_proj", "o_proj"}
    assert len({str(point) for point in grid}) == 27

    conditional = space_of(lora_r=RANK, use_dora=DORA)
    assert conditional.size == len(conditional.grid()) == 5

    endless = space_of(lora_r=RANK, learning_rate=RATE)
    assert (endless.is_finite, endless.size, endless.continuous) == (False, None, ("learning_rate",))
    with pytest.raises(InputError, match="`learning_rate` is continuous"):
        endless.grid()


def test_a_space_pickles_and_is_written_out_again() -> None:
    space = space_of(learning_rate=RATE, lora_r=RANK, use_dora=DORA, target_modules=TARGETS)
    assert space.size is None  # computed and cached before it travels
    assert draws(pickle.loads(pickle.dumps(space)), 3) == draws(space, 3)
    again = load_space(space.to_dict(), Tiny)
    assert again.parameters == space.parameters
    assert again.to_dict() == space.to_dict()


def test_rows_for_tables() -> None:
    space = space_of(learning_rate=RATE, lora_r=RANK, use_dora=DORA, target_modules=TARGETS)
    assert space.describe() == [
        {"name": "learning_rate", "type": "float", "range": "1e-5 to 0.01, log", "when": ""},
        {"name": "lora_r", "type": "choice", "range": "4 | 8 | 16", "when": ""},
        {"name": "use_dora", "type": "choice", "range": "true | false", "when": "lora_r = 4 | 8"},
        {"name": "target_modules", "type": "choice", "range": "all-linear | q_proj+v_proj | o_proj", "when": ""},
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3e-4, "3e-4"),
        (5e-5, "5e-5"),
        (0.03, "0.03"),
        (1.5e-3, "1.5e-3"),
        (0.0, "0"),
        (16, "16"),
        (2.5, "2.5"),
        (True, "true"),
    ],
)
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert shown(value) == text


@given(st.floats(1e-8, 1.0), st.floats(1.0001, 1e3), st.booleans())
def test_any_float_range_contains_its_extremes(low: float, high: float, log: bool) -> None:
    parameter = Float(low=low, high=high, log=log)
    assert all(parameter.contains(value) for value in parameter.extremes())
    assert not parameter.contains(high * 1.01)


# --- spaces in Python ---

FUNCTIONS = "tests.tuner.space.functions"


def function_space(name: str) -> FunctionSpace:
    space = load_space(f"{FUNCTIONS}:{name}", Tiny)
    assert isinstance(space, FunctionSpace)
    return space


def test_a_function_draws() -> None:
    space = function_space("good")
    points = draws(pickle.loads(pickle.dumps(space)), 20)
    assert all(set(point) == {"learning_rate", "lora_r", "warmup_ratio"} for point in points)
    assert space.upper_bound("warmup_ratio") == 0.1
    assert space.upper_bound("max_steps") is None
    assert not space.is_finite


def test_a_function_can_hold_the_recipe() -> None:
    space = function_space("good")
    recipe = space.recipe({"learning_rate": 3e-4, "lora_r": 16, "warmup_ratio": 0.03})
    assert recipe.params == {"learning_rate": 3e-4, "lora_r": 16, "warmup_ratio": 0.03}
    study = optuna.create_study()
    study.enqueue_trial(space.encode(recipe.params))
    assert space.suggest(study.ask(), only=recipe.params) == recipe.params


@pytest.mark.parametrize(("name", "rate"), [("good", 0.5), ("renamed", 1e-3)])
def test_a_function_that_cannot_hold_the_recipe_is_not_told(name: str, rate: float) -> None:
    space = function_space(name)
    recipe = space.recipe({"learning_rate": rate, "lora_r": 16, "warmup_ratio": 0.03})
    assert recipe.params == {}
    assert "not a point" in recipe.notes[0]
    assert space.suggest(optuna.create_study().ask(), only=recipe.params) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown", "unknown parameter `leaning_rate`; did you mean `learning_rate`"),
        ("refused", "`max_length` cannot be searched: it changes"),
        ("empty", "returned nothing"),
    ],
)
def test_what_a_function_returns_is_checked_on_every_draw(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draws(function_space(name), 1)


@pytest.mark.parametrize("target", ["nothing", "NOT_A_FUNCTION"])
def test_a_function_that_is_none(target: str) -> None:
    with pytest.raises(InputError, match=r"search\.space"):
        load_space(f"{FUNCTIONS}:{target}", Tiny)
