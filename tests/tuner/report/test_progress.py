from __future__ import annotations

import math
import random
from statistics import mean, median
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.contract import Reason, Verdict
from tuner.report.progress import estimate
from tuner.results.ledger import Event, Kind
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
    assert shares == sorted(shares) and shares[0] < 0.25 and 0.4 < shares[7] < 0.7 and shares[-1] == 1.0


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
    assert spans[0].most > 8 * spans[0].least and spans[-3].most < 4 * spans[-3].least, (spans[0], spans[-3])
    assert spans[-3].most < spans[0].likely


def test_a_single_trial_is_compared_with_none() -> None:
    tape = searches.Tape(num_trials=1)
    tape.trial(0, {}, [5.0, 4.0], None)
    progress = estimate(tape.record, 10.0)
    assert progress.share == pytest.approx(0.11) and progress.expected == 1.0


def test_no_time_is_named_once_it_is_over() -> None:
    assert estimate(searches.finished().record, 60.0).left is None


SHARES = (0.06, 0.1, 0.18, 0.3, 0.4, 0.5, 0.54, 0.6, 0.7, 0.8, 0.9, 1.0)
RUNGS = (0.06, 0.18, 0.54)


def drawn(seed: int, trials: int, workers: int, rungs: tuple[float, ...]) -> list[Event]:
    """The events of a search whose trials take random times and are stopped at random; an evaluation takes as long as
    a twentieth of a trial."""
    chance = random.Random(seed)
    events: list[Event] = []

    def say(kind: Kind, time: float, number: int | None = None, **more: Any) -> None:
        attempt = None if number is None else 1
        events.append(Event(kind, time=time, number=number, trial=number and f"t{number}", attempt=attempt, **more))

    ladder = {"evaluate_at": list(SHARES), "rungs": list(rungs), "reduction_factor": 3.0}
    about = {"name": "drawn", "num_trials": trials, "workers": workers, "ladder": ladder}
    say(Kind.SEARCH, 0.0, details=about)
    free = [(3.0, True)] * workers
    for number in range(trials):
        (now, first), *free = sorted(free)
        say(Kind.STARTED, now, number, params={})
        begun = now = now + (chance.uniform(10, 20) if first else 0.3)
        say(Kind.SETUP, now, number, details={"max_steps": 100})
        long, before = chance.lognormvariate(math.log(20), 0.3), 0.0
        for share in SHARES:
            now += long * (share - before + 0.05) * chance.uniform(0.8, 1.3) * (2 if first and not before else 1)
            before = share
            details = {"seconds": now - begun}
            say(Kind.EVALUATION, now, number, step=round(100 * share), metrics={"eval_loss": 2.0}, details=details)
            if share in rungs and number and chance.random() < 2 / 3:
                break
        verdict = searches.BUDGET if before == 1.0 else searches.rung(1, 2.0, 1.0)
        say(Kind.ENDED, now, number, status=str(verdict.status), reason=str(verdict.reason))
        free.append((now + 0.1, False))
    say(Kind.FINISHED, events[-1].time + 0.4, details={"outcome": "done"})
    return sorted(events, key=lambda event: event.time)


def test_the_end_lies_in_the_range_at_eight_of_ten_moments() -> None:
    kinds = [(16, 2, RUNGS), (8, 1, RUNGS), (24, 8, RUNGS), (100, 4, RUNGS), (16, 2, ()), (24, 8, ())]
    share, widths = [], []
    for trials, workers, rungs in kinds:
        inside = moments = 0
        for seed in range(8):
            events = drawn(seed, trials, workers, rungs)
            end, record, read = events[-1].time, SearchRecord(), 0
            for now in (end * part / 40 for part in range(1, 40)):
                while events[read].time <= now:
                    record.apply(events[read])
                    read += 1
                left = estimate(record, record.wall_s + now - events[read - 1].time).left
                if left is not None and end - now >= 1:
                    moments += 1
                    inside += left.least <= end - now <= left.most
                    widths.append(left.most / left.least)
        share.append(inside / moments)
    assert mean(share) >= 0.8 and min(share) >= 0.65, share
    assert median(widths) < 5, "a range that holds everything says nothing"
