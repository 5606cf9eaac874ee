"""A finite space: each point is drawn once, by every sampler, and the search ends where none is left."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.programs.toy import Toy
from tests.tuner.study.test_study import make
from tuner.config import Random, Tpe
from tuner.config.sections import Cmaes, Gp, Qmc
from tuner.contract import Reason, Verdict
from tuner.results.records import Point, TrialRecord
from tuner.space import load_space
from tuner.study.distinct import point_key

BATCHES = [8, 16, 32, 64]
FINITE = load_space(
    {
        "parameters": {
            "batch_size": {"type": "choice", "values": BATCHES},
            "learning_rate": {"type": "choice", "values": [1e-3, 1e-2, 1e-1]},
        }
    },
    Toy,
)
CONDITIONAL = load_space(
    {
        "parameters": {
            "batch_size": {"type": "choice", "values": [8, 16]},
            "learning_rate": {"type": "choice", "values": [1e-3, 1e-2, 1e-1], "when": {"batch_size": 8}},
        }
    },
    Toy,
)
NUMBERS = load_space({"parameters": {"batch_size": {"type": "int", "low": 1, "high": 6}}}, Toy)
RECIPE = {"batch_size": 8, "learning_rate": 1e-3}


def loss_of(params: dict[str, Any]) -> float:
    return params["batch_size"] * 0.1 + params.get("learning_rate", 0.0)


def drawn(study: Any, trials: int = 40, running: int = 0) -> list[dict[str, Any]]:
    """The points that a study draws until none is left, while `running` of them have no ending."""
    points: list[dict[str, Any]] = []
    while len(points) < trials and (suggestion := study.ask()) is not None:
        assert suggestion.number == len(points)
        points.append(dict(suggestion.params))
        done = len(points) - 1 - running
        if done >= 0:
            study.report(done, 10, loss_of(points[done]))
            reason = (Reason.BUDGET, Reason.RUNG, Reason.DIVERGED, Reason.ERROR)[done % 4]
            study.tell(done, Verdict(reason), loss_of(points[done]))
    return points


@pytest.mark.parametrize("sampler", [Tpe(), Random(), Qmc(), Gp(), Cmaes()], ids=lambda s: s.kind)
@pytest.mark.parametrize("running", [0, 3])
def test_every_point_once_whatever_draws_it(tmp_path: Path, sampler: Any, running: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = make(tmp_path / "study.journal", space=FINITE, sampler=sampler, recipe=RECIPE)
        points = drawn(study, running=running)
    assert len(points) == FINITE.size == 12
    assert len({point_key(point) for point in points}) == 12
    assert [trial.number for trial in study.optuna.trials] == list(range(12)), "no repeat has reached the study"


@pytest.mark.parametrize(("space", "size"), [(CONDITIONAL, 4), (NUMBERS, 6)])
def test_conditions_and_ranges_of_ints_too(tmp_path: Path, space: Any, size: int) -> None:
    recipe = {name: value for name, value in {"batch_size": 16}.items() if space is CONDITIONAL}
    points = drawn(make(tmp_path / "study.journal", space=space, recipe=recipe or {"batch_size": 3}))
    assert len(points) == size and len({point_key(point) for point in points}) == size


def test_a_recipe_outside_the_space_is_one_more(tmp_path: Path) -> None:
    points = drawn(make(tmp_path / "study.journal", space=FINITE, recipe={"batch_size": 8}))
    assert points[0] == {"batch_size": 8} and len(points) == 13


def test_the_sampler_still_chooses(tmp_path: Path) -> None:
    """What TPE draws of 160 points lies far below their mean (31.9), where random draws lie at it."""
    ranges = {"batch_size": [1, 2, 4, 8, 16, 32, 64, 128], "learning_rate": [10 ** (-k / 4) for k in range(1, 21)]}
    parameters = {name: {"type": "choice", "values": values} for name, values in ranges.items()}
    space = load_space({"parameters": parameters}, Toy)
    points = []
    for seed in range(3):
        study = make(tmp_path / f"{seed}.journal", space=space, recipe={"batch_size": 64}, seed=seed)
        for number in range(40):
            batch = study.ask().params["batch_size"]
            study.tell(number, Verdict(Reason.BUDGET), batch / 64)
            points += [batch] if number >= 10 else []
    assert sum(points) / len(points) < 0.8 * 31.9


def test_what_a_person_adds_may_repeat(tmp_path: Path) -> None:
    study = make(tmp_path / "study.journal", space=FINITE, recipe=RECIPE)
    assert len(drawn(study)) == 12
    assert study.ask(RECIPE, by="you").params == RECIPE
    assert study.ask() is None


def test_a_resume_draws_no_point_again(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = make(path, space=FINITE, recipe=RECIPE)
    records = []
    for number in range(7):
        suggestion = study.ask()
        records.append(
            TrialRecord(
                number=number, params=dict(suggestion.params), distributions=dict(suggestion.distributions),
                points=[Point(10, 10, 100, 1.0, resource=10)],
                status=Reason.BUDGET.status, reason=Reason.BUDGET,
            )
        )  # fmt: skip
        study.tell(number, Verdict(Reason.BUDGET), 1.0)
    again = make(path, records, space=FINITE, recipe=RECIPE)
    keys = {point_key(record.params) for record in records}
    rest = []
    while (suggestion := again.ask()) is not None:
        rest.append(point_key(suggestion.params))
    assert len(rest) == 5 and len({*keys, *rest}) == 12
