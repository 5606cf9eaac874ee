"""What an attempt at a trial knows of the attempts before it."""

from __future__ import annotations

import math
import time

import pytest

from trainables.progress import AttemptProgress
from tuner.contract import Evaluation, Resume


def resumed(known: int, best: float | None, step: int, loss: float | None) -> AttemptProgress:
    """Progress of an attempt that continues from a state, saved at `step` of 10 with `loss`. known: the last step that
    the driver knows, with the best loss so far."""
    progress = AttemptProgress(time.monotonic())
    progress.resume(Resume(known, best, ()), Evaluation(step, 10, loss, seconds=100.0))
    return progress


@pytest.mark.parametrize(
    ("known", "step", "unheard"),
    [(4, 6, True), (6, 6, False), (6, 4, False), (0, 2, True), (10, 10, True)],  # the last one ends the trial anew
)
def test_an_evaluation_that_the_driver_has_not_heard_of_is_handed_over_once(
    known: int, step: int, unheard: bool
) -> None:
    progress = resumed(known, 1.0, step, 2.0)
    assert (progress.unheard is not None) is unheard
    found = progress.take_unheard()
    assert (found is not None and found.step == step) is unheard and progress.take_unheard() is None
    assert progress.knows(known) and not progress.knows(known + 1)


@pytest.mark.parametrize(
    ("best", "saved", "improves"),
    [
        (None, None, math.inf),
        (3.0, None, 3.0),
        (None, 2.0, 2.0),
        (3.0, 2.0, 2.0),
        (2.0, 3.0, 2.0),
        (2.0, math.nan, 2.0),
        (math.nan, math.nan, math.inf),
    ],
)
def test_the_best_loss_is_that_of_all_attempts(best: float | None, saved: float | None, improves: float) -> None:
    progress = resumed(4, best, 6, saved)
    if math.isfinite(improves):
        assert not progress.improves(improves)
    assert not progress.improves(None) and not progress.improves(math.nan)
    lower = improves - 1.0 if math.isfinite(improves) else 1e9
    assert progress.improves(lower) and not progress.improves(lower)


def test_seconds_are_those_of_all_attempts() -> None:
    assert 100.0 <= resumed(4, None, 6, None).seconds < 160.0
    assert AttemptProgress(time.monotonic()).seconds < 60.0
