from __future__ import annotations

import pytest

from tests.tuner.report import searches
from tuner.report.progress import estimate
from tuner.results.records import SearchRecord


def test_progress_only_grows_near_the_truth() -> None:
    """Half way through forty trials, the estimate knows that three of four are stopped early."""
    tape = searches.many()
    record = SearchRecord.fold(tape.events[: len(tape.events) // 2])
    progress = estimate(record, record.wall_s)
    assert progress.share == pytest.approx(0.5, abs=0.1)
    assert progress.left == pytest.approx(record.wall_s, rel=0.3)


def test_a_trial_that_still_runs_is_expected_to_go_on() -> None:
    """The early endings are the stopped ones: their mean alone would promise an end far too soon."""
    tape = searches.Tape(num_trials=3)
    tape.trial(0, {}, [5.0, 4.0, 3.5, 3.2], None)  # at 33 of 100 steps, and running
    tape.trial(1, {}, [7.0], searches.rung(1, 7.0, 5.0))
    tape.trial(2, {}, [7.0], searches.rung(1, 7.0, 5.0))
    progress = estimate(tape.record, 41.0)
    assert progress.share == pytest.approx(0.41 / 1.08)
    assert progress.left == pytest.approx(67.0)


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


def test_no_time_is_named_while_nobody_knows_what_will_be_stopped() -> None:
    tape = searches.Tape(num_trials=16)
    for number in range(2):
        tape.trial(number, {}, [5.0, 4.0, 3.5, 3.2], None)
    assert estimate(tape.record, 60.0).left is None
