"""An objective: which of two values is better, and an evaluation's metrics by its name."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest

from tuner.contract import EVAL_LOSS, Evaluation, Objective, checked_objectives, compared_by

FALLS = Objective("perplexity")
RISES = Objective("exact_match", "exact match of the answers", "maximize", "match")


def test_what_is_better_follows_the_direction() -> None:
    assert FALLS.better(1.0, 2.0) and not FALLS.better(2.0, 1.0) and not FALLS.better(1.0, 1.0)
    assert RISES.better(2.0, 1.0) and not RISES.better(1.0, 2.0) and not RISES.better(1.0, 1.0)
    for objective in (FALLS, RISES):
        for nothing in (None, math.nan):
            assert objective.better(1e9, nothing) and objective.better(-1e9, nothing)
            assert not objective.better(nothing, 0.0) and not objective.better(nothing, nothing)
        assert objective.cost(objective.cost(3.5)) == 3.5


def test_the_best_is_the_first_of_equals_and_none_of_nothing() -> None:
    items = [("a", None), ("b", 2.0), ("c", math.nan), ("d", 2.0), ("e", 1.0)]
    assert FALLS.best(items, lambda item: item[1]) == ("e", 1.0)
    assert RISES.best(items, lambda item: item[1]) == ("b", 2.0)
    assert RISES.best([("a", None), ("c", math.nan)], lambda item: item[1]) is None
    assert RISES.best_of([None, -math.inf, 0.5, math.inf, math.nan, 0.25]) == 0.5
    assert FALLS.best_of([None, math.nan, math.inf]) is None


@pytest.mark.parametrize(
    ("objective", "value", "base", "gain"),
    [
        (FALLS, 1.5, 2.0, 0.25), (FALLS, 2.5, 2.0, -0.25), (RISES, 1.5, 2.0, -0.25), (RISES, 2.5, 2.0, 0.25),
        (FALLS, -3.0, -2.0, 0.5), (RISES, -3.0, -2.0, -0.5), (RISES, 0.4, 0.0, None), (FALLS, 2.0, 2.0, 0.0),
    ],
)  # fmt: skip
def test_a_gain_is_a_share_of_the_base(objective: Objective, value: float, base: float, gain: float | None) -> None:
    assert objective.gain(value, base) == gain


def test_words() -> None:
    assert (EVAL_LOSS.title, EVAL_LOSS.noun, EVAL_LOSS.heading) == ("validation loss", "loss", "eval loss")
    assert (RISES.title, RISES.noun, RISES.heading) == ("exact match of the answers", "match", "exact match")
    assert (FALLS.title, FALLS.noun, FALLS.heading) == ("perplexity", "perplexity", "perplexity")
    assert Objective.from_dict({**RISES.to_dict(), "unit": "of a newer version"}) == RISES


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""}, {"name": "exact match"}, {"name": "a" * 65}, {"name": 3}, {"name": "a", "direction": "up"},
        {"name": "a", "label": "\x1b[31m"}, {"name": "a", "label": "x" * 65}, {"name": "a", "short": None}, {},
        {"name": "a", "direction": ["minimize"]}, {"name": "a", "measured": "sometimes"},
    ],
)  # fmt: skip
def test_what_can_be_no_objective_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective.from_dict(given)


@pytest.mark.parametrize("given", [None, (), "eval_loss", ("eval_loss",), (FALLS, Objective("perplexity", "again"))])
def test_a_program_names_objectives_once_each(given: Any) -> None:
    with pytest.raises(ValueError, match="OBJECTIVES must"):
        checked_objectives(given)
    assert checked_objectives([RISES, FALLS]) == (RISES, FALLS)


def test_what_is_measured_at_the_end_leaves_the_rungs_to_another() -> None:
    late = replace(RISES, measured="end")
    assert compared_by([late, FALLS, EVAL_LOSS]) is not late and compared_by([late, FALLS]) == FALLS
    assert "measured" not in FALLS.to_dict() and Objective.from_dict(late.to_dict()) == late
    for alone in (checked_objectives, compared_by):
        with pytest.raises(ValueError, match="measured at every evaluation"):
            alone([late])


def test_an_evaluation_carries_metrics_by_name() -> None:
    evaluation = Evaluation(4, 10, metrics={"exact_match": 0.5, "perplexity": None}, tokens=7)
    assert (evaluation.metrics, evaluation.eval_loss) == ({"exact_match": 0.5, "perplexity": None}, None)
    assert Evaluation(**evaluation.to_dict()) == evaluation == pickle.loads(pickle.dumps(evaluation))
    later = replace(evaluation, step=10, metrics={"exact_match": 0.75})
    assert (later.step, later.done, later.metrics, later.tokens) == (10, True, {"exact_match": 0.75}, 7)


def test_a_program_of_version_0_1_says_eval_loss() -> None:
    by_name = Evaluation(step=4, max_steps=10, eval_loss=2.5, tokens=400)
    assert by_name == Evaluation(4, 10, 2.5, 400) == Evaluation(4, 10, tokens=400, metrics={"eval_loss": 2.5})
    assert by_name.eval_loss == 2.5 and replace(by_name, eval_loss=2.0).metrics == {"eval_loss": 2.0}
    assert Evaluation(4, 10, None).metrics == {}
    kept = {"step": 4, "max_steps": 10, "eval_loss": 2.5, "tokens": 400, "train_loss": None, "seconds": 1.0,
            "memory": None, "adapter": None}  # fmt: skip
    assert Evaluation(**kept).metrics == {"eval_loss": 2.5}, "a state that 0.1 wrote"
