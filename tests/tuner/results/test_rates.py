"""What trials took, from searches made by hand whose pace is known."""

from __future__ import annotations

import pytest

from tests.tuner.report import searches
from tuner.results.ledger import Kind
from tuner.results.rates import Rates, rates_of
from tuner.results.records import SearchRecord

STEP, EVALUATION, SET_UP, GAP, COLD = 0.2, 1.5, 3.0, 0.25, 10.0


def search(places: tuple[int, ...] = (5, 10, 20), trials: int = 4, workers: int = 2, gpus: float = 1.0) -> SearchRecord:
    """Trials on two workers: a step takes STEP, an evaluation EVALUATION; a worker's first trial has COLD first
    calls."""
    tape = searches.Tape(num_trials=8, workers=workers)
    tape.events[0].details["gpus_per_trial"] = gpus  # type: ignore[index]
    begun = tape.time
    free = [2.0] * workers
    timed = []
    for number in range(trials):
        worker = min(range(workers), key=free.__getitem__)
        cold = COLD if number < workers else 0.0
        at = free[worker] + (GAP if number >= workers else 0.0)
        timed.append((at, "start", number, 0, 0.0))
        timed.append((at + SET_UP, "setup", number, 0, 0.0))
        for count, step in enumerate(places, 1):
            seconds = SET_UP + cold + step * STEP + count * EVALUATION
            timed.append((at + seconds, "evaluate", number, step, seconds))
        free[worker] = at + seconds
        timed.append((free[worker], "end", number, 0, 0.0))
    for when, what, number, step, seconds in sorted(timed, key=lambda one: one[0]):
        tape.time = begun + when - 1.0  # a tape adds a second for each event
        if what == "start":
            tape.start(number, searches.RECIPE_PARAMS)
        elif what == "setup":
            tape.setup(number)
        elif what == "end":
            tape.end(number, searches.BUDGET)
        else:
            details = {"seconds": seconds}
            tape._of(
                Kind.EVALUATION, number, step=step, tokens=step * 2000, metrics={"eval_loss": 4.0}, details=details
            )
    tape.finish()
    return tape.record


def rates(record: SearchRecord) -> Rates:
    found = rates_of(record, "a test")
    assert found is not None
    return found


def test_steps_evaluations_and_beginnings_are_told_apart() -> None:
    found = rates(search())
    assert found.step_s == pytest.approx(STEP) and found.evaluation_s == pytest.approx(EVALUATION)
    assert found.begin_s == pytest.approx(GAP + SET_UP), "what the first trial of a worker waits for is not in it"
    assert found.start_s == pytest.approx(2.0 + SET_UP + COLD)
    assert found.end_s == pytest.approx(1.0)
    assert (found.workers, found.at_once, found.gpus) == (2, 2, 2.0)
    assert (
        found.step_tokens == 2000 and set(found.tokens) == {2000.0 * searches.STEPS} and found.steps == searches.STEPS
    )


def test_with_stretches_of_one_length_the_evaluations_are_in_the_steps() -> None:
    found = rates(search(places=(10, 20, 30)))
    assert found.evaluation_s == 0 and found.step_s == pytest.approx(STEP + EVALUATION / 10)


def test_a_worker_with_one_trial_says_nothing_of_beginnings() -> None:
    assert rates(search(trials=2)).begin_s == 0


@pytest.mark.parametrize("record", [search(places=(5, 10)), SearchRecord(), searches.unprepared().record])
def test_nothing_is_known_of_trials_that_were_measured_less(record: SearchRecord) -> None:
    assert rates_of(record, "") is None


def test_any_record_is_read() -> None:
    for make in (searches.finished, searches.running, searches.resumed, searches.many, searches.lost, searches.parked):
        found = rates_of(make().record, "")
        assert found is None or (found.step_s >= 0 and found.begin_s >= 0)
