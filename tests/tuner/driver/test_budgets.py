"""The end of a search by its budget, and what a resume may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.config import SearchBudget, load_experiment
from tuner.contract import InputError
from tuner.driver.budgets import Budgets
from tuner.driver.ending import nothing_left
from tuner.driver.resuming import with_more
from tuner.results.folder import RunFolder
from tuner.results.ledger import Event, Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.scheduling.forecast import Forecast, Pace, Range


def foresee(pace: Pace) -> Forecast:
    return Forecast(Range(3, 4, 5), 0.5, 40, Range(3 * pace.whole, 4 * pace.whole, 5 * pace.whole))


class Run:
    """A ledger on disk with the events of a search made by hand, and the budgets of its session."""

    def __init__(self, place: Path, tape: searches.Tape, **budget: Any) -> None:
        self.record, self.now = SearchRecord(), 0.0
        self.written: list[Event] = []
        self.ledger = Ledger(place / "trials.jsonl", [self.record.apply, self.written.append])
        for event in tape.events:
            self.record.apply(event)
        settings = SearchBudget.model_validate(budget, strict=True)
        self.budgets = Budgets(self.record, self.ledger, settings, foresee, clock=lambda: self.now)
        self.ledger.listen(self.budgets.heard)

    def turn(self, after: float = 0.0) -> SearchRecord:
        self.now += after
        self.budgets.turn()
        return self.record


def test_the_clock_runs_on_between_events(tmp_path: Path) -> None:
    run = Run(tmp_path, searches.running(), wall_time="60 s")
    left = 60 - run.record.wall_s
    assert not run.turn().stopped and not run.turn(left - 0.5).stopped
    assert run.turn(1.0).stopped == "budget"
    assert (run.record.spent, run.record.spent_of) == ("the budget of 60 s on the clock is spent", "wall_time")
    run.turn(100)
    assert [event.event for event in run.written] == [Kind.STOPPED]


def test_an_ending_in_this_session_counts_for_gains(tmp_path: Path) -> None:
    tape = searches.Tape(num_trials=20, workers=1)
    for number in range(3):
        tape.trial(number, searches.RECIPE_PARAMS, [4.0 - number], searches.BUDGET)
    tape.trial(3, searches.RECIPE_PARAMS, [2.0], None)
    run = Run(tmp_path, tape, until={"gain_below": "1%", "next": 1})
    assert not run.turn().stopped
    tape.end(3, searches.BUDGET)
    last = tape.events[-1]
    run.ledger.append(Kind.ENDED, trial=last.trial, number=3, attempt=1, status="completed", reason="budget")
    assert run.turn().spent == "the last trial gained 0%, less than 1%"


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({"tokens": 100_000}, "search.budget.tokens: 100k are fewer than the 200k of one whole trial; about 800k"),
        ({"wall_time": "8 s"}, "search.budget.wall_time: 8 s is less than one whole trial takes ("),
        ({"tokens": 1_000_000, "wall_time": "1h"}, None),
    ],
)
def test_a_budget_below_one_trial_is_said_once_the_recipe_shows_it(
    tmp_path: Path, budget: dict[str, Any], told: str | None
) -> None:
    tape = searches.Tape(num_trials=8, workers=1)
    tape.start(0, searches.RECIPE_PARAMS)
    tape.setup(0)
    run = Run(tmp_path, tape, **budget)
    assert not run.turn().notes
    tape.evaluate(0, 11, 5.0)
    run.record.apply(tape.events[-1])
    notes = run.turn().notes
    assert bool(notes) == (told is not None)
    if told is not None:
        assert notes[0].startswith(told) and notes[0].endswith("would do for all 8 trials")
    run.turn(0.1)
    assert run.record.notes == notes


def spent_search() -> SearchRecord:
    tape = searches.Tape(num_trials=8, workers=2)
    tape.events[0].details["budget"] = {"tokens": 100_000, "wall_time": "2h"}  # type: ignore[index]
    tape.trial(0, searches.RECIPE_PARAMS, [4.0, 3.0, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5], searches.BUDGET)
    tape.say(Kind.STOPPED, details={"by": "budget", "budget": "tokens", "text": "the budget of 100k tokens is spent"})
    tape.finish("stopped")
    return tape.record


def test_a_resume_has_the_budget_of_the_ledger_and_what_it_is_given() -> None:
    experiment = load_experiment(None, ["search.num_trials=8", "search.budget.tokens=100k"])
    same = with_more(experiment, spent_search(), None, None).search
    assert same.budget == SearchBudget(tokens=100_000, wall_time="2h") and same.num_trials == 8
    more = with_more(experiment, spent_search(), 9, {"tokens": "1M"}).search
    assert more.budget == SearchBudget(tokens=1_000_000, wall_time="2h") and more.num_trials == 9
    lifted = with_more(experiment, spent_search(), None, {"tokens": None}).search.budget
    assert lifted == SearchBudget(wall_time="2h"), "what the file says of tokens does not come back"
    with pytest.raises(InputError, match=r"started without run\.price_per_gpu_hour"):
        with_more(experiment, spent_search(), None, {"money": 3})
    with pytest.raises(InputError, match="already has 1 trials"):
        with_more(experiment, spent_search(), 0, None)


def test_nothing_is_left_until_there_is_more(tmp_path: Path) -> None:
    experiment, folder = load_experiment(None, ["search.num_trials=8"]), RunFolder(tmp_path)
    record = spent_search()
    assert nothing_left(folder, record, with_more(experiment, record, None, None).search) is None, "best/ is missing"
    tape = searches.Tape(num_trials=8, workers=2)
    tape.events[0].details["budget"] = {"wall_time": "1s"}  # type: ignore[index]
    tape.start(0, searches.RECIPE_PARAMS)
    tape.say(Kind.STOPPED, details={"by": "budget", "budget": "wall_time", "text": "spent"})
    tape.interrupt(0)
    tape.finish("stopped")
    done = nothing_left(folder, tape.record, with_more(experiment, tape.record, None, None).search)
    assert done is not None and done.nothing_left and done.exit_code == 1
    more = with_more(experiment, tape.record, None, {"wall_time": "1h"}).search
    assert nothing_left(folder, tape.record, more) is None
