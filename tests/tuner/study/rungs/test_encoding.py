"""Parameters as coordinates: scales, orders, categories, conditions."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.study.rungs.encoding import ABSENT, Axis, Encoding


@pytest.mark.parametrize(
    ("distribution", "value", "coordinate"),
    [
        (FloatDistribution(1e-5, 1e-1, log=True), 1e-3, 0.5),
        (FloatDistribution(0.0, 0.4), 0.1, 0.25),
        (FloatDistribution(0.0, 0.4, step=0.1), 0.1, 0.25),
        (IntDistribution(1, 5), 2, 0.25),
        (IntDistribution(1, 16, log=True), 4, 0.5),
        (CategoricalDistribution([4, 8, 16, 32, 64]), 16, 0.5),
        (CategoricalDistribution([64, 4, 16]), 16, 0.5),
        (CategoricalDistribution([0.0, 0.05, 0.1]), 0.05, 0.5),
        (CategoricalDistribution(["linear", "cosine"]), "cosine", 1.0),
        (CategoricalDistribution([False, True]), True, 1.0),
    ],
    ids=str,
)
def test_a_value_has_a_coordinate_and_a_coordinate_its_value(distribution: Any, value: Any, coordinate: float) -> None:
    axis = Axis(distribution)
    assert axis.coordinate(value) == pytest.approx(coordinate)
    back = axis.value(coordinate)
    assert back == pytest.approx(value) if not isinstance(value, str) else back == value
    assert type(back) is type(value)
    assert distribution._contains(distribution.to_internal_repr(back))


@pytest.mark.parametrize("choices", [["a", "b"], [False, True], [8, "auto"], [None, 1]], ids=str)
def test_what_is_no_list_of_numbers_has_no_order(choices: list[Any]) -> None:
    assert not Axis(CategoricalDistribution(choices)).ordered


SPACE = {
    "mode": CategoricalDistribution(["plain", "decayed", "both"]),
    "decay": FloatDistribution(0.0, 0.1),
    "rank": CategoricalDistribution([4, 8, 16]),
}
POINTS = [
    {"mode": "plain", "rank": 4},
    {"mode": "decayed", "decay": 0.1, "rank": 8},
    {"mode": "decayed", "decay": 0.0, "rank": 4},
]


def test_a_condition_is_learnt_from_trials() -> None:
    encoding = Encoding(SPACE)
    encoding.learn_conditions(POINTS)
    rows = encoding.from_uniform(numpy.random.default_rng(0).random((50, 3)))
    for row in rows:
        point = encoding.decode(row)
        assert ("decay" in point) == (point["mode"] != "plain"), "a mode that no trial had may have it"


def test_a_condition_that_is_given_holds() -> None:
    encoding = Encoding(SPACE, {"decay": {"mode": ["both"]}})
    rows = encoding.rounded(numpy.random.default_rng(0).random((50, 3)) * [1.0, 2.4, 1.0])
    assert all(("decay" in (point := encoding.decode(row))) == (point["mode"] == "both") for row in rows)
    assert (rows[:, 0] == ABSENT).any() and (rows[:, 0] != ABSENT).any()


def test_distances_are_those_of_scales_categories_and_absence() -> None:
    encoding = Encoding(SPACE, {"decay": {"mode": ["decayed", "both"]}})
    features, owners = encoding.features(numpy.array([encoding.encode(point) for point in POINTS]))
    squared = (features[:, None] - features[None]) ** 2
    by_name = {name: squared[:, :, owners == index].sum(2) for index, name in enumerate(encoding.names)}
    assert by_name["mode"][0, 1] == pytest.approx(1.0) and by_name["mode"][1, 2] == 0
    assert by_name["decay"][1, 2] == pytest.approx(1.0)
    assert 0.85 < by_name["decay"][0, 1] < 1.2
    assert by_name["rank"][0, 1] == pytest.approx(0.25)


def test_a_value_outside_of_the_choices_is_not_found() -> None:
    encoding = Encoding(SPACE)
    assert encoding.find({"mode": "other", "rank": 4}) is None
    assert encoding.find({"mode": "plain", "rank": 4}) is not None
