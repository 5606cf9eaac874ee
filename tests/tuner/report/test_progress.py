from __future__ import annotations

import pytest

from tests.tuner.report import searches
from tuner.contract import Reason, Verdict
from tuner.report.progress import estimate
from tuner.results.records import SearchRecord


def test_progress_only_grows_near_the_truth() -> None:
    """Half way through forty trials, the estimate knows that three of four are stopped early."""
    tape = searches.many()
    record = SearchRecord.fold(tape.events[: len(tape.events) // 2])
    progress = estimate(record, record.wall_s)
    assert progress.share == pytest.approx(0.5, abs=0.1)
    assert progress.left and progress.left.likely == pytest.approx(record.wall_s, rel=0.3)
    assert progress.left.least < progress.left.likely < progress.left.most


def test_a_trial_that_still_runs_is_expected_to_go_on() -> None:
    """The early endings are the stopped ones: their mean alone would promise an end far too soon."""
    tape = searches.Tape(num_trials=3)
    tape.trial(0, {}, [5.0, 4.0, 3.5, 3.2], None)  # at 33 of 100 steps, and running
    tape.trial(1, {}, [7.0], searches.rung(1, 7.0, 5.0))
    tape.trial(2, {}, [7.0], searches.rung(1, 7.0, 5.0))
    record = tape.record
    progress = estimate(record, 41.0)
    assert progress.done == pytest.approx(0.41)
    assert progress.expected - progress.done == pytest.approx(0.67), "the survival curve is flat from 33% on"
    pace = 8 / 0.41  # seconds between set-up and the last evaluation, over the share trained in them
    assert progress.left and progress.left.likely >= 0.67 * pace * record.busy_s / record.trial_s


def test_no_estimate_before_there_is_something_to_go_by() -> None:
    tape = searches.Tape()
    assert estimate(tape.record, 10.0).left is None
    tape.start(0, {})
    assert estimate(tape.record, 10.0).left is None
    assert estimate(tape.record, 10.0).share == 0.0


def test_the_end_is_the_end() -> None:
    assert estimate(searches.finished().record, 60.0).share == 1.0


def test_an_interrupted_trial_is_work_to_be_done_again() -> None:
    record = searches.interrupted().record
    assert estimate(record, 30.0).share < 0.5


def test_the_first_trial_ends_without_a_step() -> None:
    """One of sixteen is over and nothing is done: the bar says so, and goes on from there."""
    tape = searches.Tape(num_trials=16)
    tape.trial(0, searches.RECIPE_PARAMS, [], Verdict(Reason.OUT_OF_MEMORY, "out of memory"))
    assert estimate(tape.record, 10.0).share == 0.0
    shares = []
    for number in range(1, 16):
        tape.trial(number, {}, [5.0, 4.0, 3.5, 3.2, 3.1, 3.0, 2.9, 2.8], searches.BUDGET)
        shares.append(estimate(tape.record, tape.record.wall_s).share)
    assert shares == sorted(shares) and shares[0] < 0.2 and 0.4 < shares[7] < 0.7 and shares[-1] == 1.0


def test_time_left_is_named_from_the_first_evaluation_on_and_becomes_surer() -> None:
    tape = searches.Tape(num_trials=16)
    spans = []
    for number in range(16):
        tape.start(number, {})
        tape.setup(number)
        for step, loss in zip(searches.PLACES[: 8 if number % 3 == 0 else 2], (5.0, 4.0, 3.5, 3.2) * 2, strict=False):
            tape.evaluate(number, step, loss)
            left = estimate(tape.record, tape.record.wall_s).left
            if number == 15 and step == 100:
                continue  # nothing is left
            assert left and 0 < left.least < left.likely < left.most
            spans.append(left)
        tape.end(number, searches.BUDGET if number % 3 == 0 else searches.rung(1, 4.0, 3.0))
    assert tape.record.wall_s > 100, "the first one is named after three seconds of training"
    assert spans[0].most > 4 * spans[0].least and spans[-3].most < 2 * spans[-3].least, (spans[0], spans[-3])
    assert spans[-3].most < spans[0].least


def test_a_single_trial_is_compared_with_none() -> None:
    tape = searches.Tape(num_trials=1)
    tape.trial(0, {}, [5.0, 4.0], None)
    progress = estimate(tape.record, 10.0)
    assert progress.share == pytest.approx(0.11) and progress.expected == 1.0


def test_no_time_is_named_once_it_is_over() -> None:
    assert estimate(searches.finished().record, 60.0).left is None
