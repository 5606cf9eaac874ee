"""What the model is told of a study: readings at rungs, bounds, and curves made flat."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.study.rungs.encoding import Encoding
from tuner.study.rungs.readings import flattened, read

X = FloatDistribution(0.0, 1.0)
STEPS = (6, 10, 18, 20, 30, 40, 54, 60, 70, 80, 90, 100)


def trial(x: float, reached: int, state: str = "PRUNED", value: float | None = None, **more: Any) -> FrozenTrial:
    """A trial whose curve ends `x` above 1 and falls by 2 on the way, up to step `reached`."""
    values = {s: 1 + x + 2 * math.log(100 / s) / math.log(100 / 6) for s in STEPS if s <= reached}
    return create_trial(
        state=TrialState[state],
        value=value,
        params={"x": x},
        distributions={"x": X},
        intermediate_values=values,
        **more,
    )


def readings(*trials: FrozenTrial, sign: float = 1.0) -> Any:
    return read(trials, Encoding({"x": X}), sign=sign, max_resource=None)


LADDER = [trial(0.9, 6), trial(0.7, 6), trial(0.5, 18), trial(0.6, 6), trial(0.3, 54), trial(0.1, 100, "COMPLETE", 1.1)]


def test_readings_are_taken_where_trials_ended() -> None:
    found = readings(*LADDER)
    steps = numpy.round(100 * numpy.exp(found.resource)).astype(int)
    by_trial = {index: steps[found.trial == index].tolist() for index in range(6)}
    assert by_trial == {0: [6], 1: [6], 2: [6, 18], 3: [6], 4: [6, 18, 54], 5: [6, 18, 54, 100]}


def test_a_flat_reading_does_not_depend_on_how_far_its_trial_came() -> None:
    found = readings(*LADDER)
    flat = found.loss - found.progress
    assert flat == pytest.approx([1 + x for x in found.points[found.trial, 0]])


def test_survivors_are_not_taken_for_progress() -> None:
    """Losses that do not fall at all, and the better ones go further: there is no progress to see."""
    level = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    made = [
        create_trial(
            state=TrialState.PRUNED, params={"x": x}, distributions={"x": X},
            intermediate_values={s: 1 + x for s in STEPS if s <= reached},
        )
        for x, reached in zip(level, (6, 6, 6, 18, 18, 54, 54, 100), strict=True)
    ]  # fmt: skip
    assert readings(*made).progress == pytest.approx(0.0)


def test_a_bound_is_the_worst_of_all() -> None:
    bound = create_trial(
        state=TrialState.PRUNED, params={"x": 0.95}, distributions={"x": X}, intermediate_values={6: 1.0},
        system_attrs={"constraints:trainable": 1.0},
    )  # fmt: skip
    found = readings(*LADDER, bound)
    y = flattened(found)
    assert not found.finite[-1] and y[-1] == y.max() and numpy.isfinite(y).all()


def test_a_value_that_rises_is_turned_round() -> None:
    up = create_trial(state=TrialState.COMPLETE, value=3.0, params={"x": 0.5}, distributions={"x": X})
    assert readings(up, sign=-1.0).loss.tolist() == [-3.0]


def test_a_trial_that_converged_counts_as_whole_and_one_that_runs_as_running() -> None:
    running = trial(0.2, 18, "RUNNING")
    found = readings(trial(0.1, 60, "COMPLETE", 1.05), trial(0.3, 100, "COMPLETE", 1.3), running)
    assert found.loss[(found.trial == 0) & (found.resource == 0)].tolist() == [1.05]
    assert found.runs.tolist() == [False, False, True]
    assert (found.trial == 2).sum() == 2


def test_failed_trials_and_points_of_another_space_are_left_out() -> None:
    failed = trial(0.4, 6, "FAIL")
    other = create_trial(
        state=TrialState.COMPLETE, value=0.0, params={"z": 0.5}, distributions={"z": FloatDistribution(0, 1)}
    )
    assert len(readings(*LADDER, failed, other).points) == 6


def test_nothing_at_all() -> None:
    found = readings()
    assert found.points.shape == (0, 1) and flattened(found).shape == (0,)
