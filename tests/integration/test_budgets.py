"""Searches that end when a budget is spent, on real Ray, and their resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_endings import assert_consistent
from tuner.contract import InputError, Reason
from tuner.driver.session import Outcome, resume_search
from tuner.report.lines import plain
from tuner.report.summary import Place, summary

Toy = Callable[..., Outcome]
WHOLE = 27
"""Steps of a toy's trial; it counts 100 tokens a step."""


def test_tokens_end_a_search_and_more_of_them_go_on_with_it(toy: Toy, tmp_path: Path) -> None:
    budget = {"search.budget.tokens": 3 * WHOLE * 100, "search.num_trials": 6, "scheduler.kind": "none"}
    outcome = toy(**budget, train__pace=0.1, resources__max_concurrent_trials=2)
    record = outcome.record
    assert outcome.exit_code == 0 and record.outcome == "stopped" and record.spent_of == "tokens"
    assert 3 * WHOLE * 100 <= record.tokens < 5 * WHOLE * 100 and record.num_ended < 6
    assert record.best is not None and (outcome.path / "best" / "manifest.json").is_file()
    assert not record.running and all(t.reason is not Reason.USER for t in record.ended)
    text = plain(summary(record, Place("toy", str(tmp_path)), 120))
    assert "the budget of 8.1k tokens is spent" in text and "--resume toy" in text and "--budget tokens=16.2k" in text

    again = resume_search(tmp_path, "toy")
    assert again.nothing_left and again.record.sessions == 1, "no Ray is started for a budget that is spent"
    with pytest.raises(InputError, match=r"search.budget.token: "):
        resume_search(tmp_path, "toy", budget={"token": 9})
    with pytest.raises(InputError, match="money cannot be counted"):
        resume_search(tmp_path, "toy", budget={"money": 9})

    cut_off = {t.number for t in record.cut_off}
    done = resume_search(tmp_path, "toy", budget={"tokens": "100k"})
    assert done.record.outcome == "done" and done.record.num_ended == 6 and not done.record.spent
    assert_consistent(done)
    assert all(done.record.trials[number].attempt == 2 for number in cut_off)
    assert done.record.budget == {"tokens": 100_000}


def test_the_clock_ends_a_search(toy: Toy) -> None:
    outcome = toy(
        search__budget__wall_time="3 s", train__pace=0.2, search__num_trials=100, resources__max_concurrent_trials=2
    )
    record = outcome.record
    assert record.outcome == "stopped" and record.spent_of == "wall_time" and record.num_ended < 100
    assert 3 <= record.wall_s < 20 and not record.running


def test_a_budget_too_small_for_one_trial_is_said_and_keeps_the_best_there_is(toy: Toy) -> None:
    outcome = toy(
        search__budget__tokens=1000, train__pace=0.3, resources__max_concurrent_trials=1, search__num_trials=4
    )
    record = outcome.record
    assert record.spent_of == "tokens" and [t.reason for t in record.ended] == [Reason.USER]
    assert record.best is not None and record.best.message == "the budget of 1k tokens is spent"
    assert any("1k are fewer than the 2.7k of one whole trial; about " in note for note in record.notes)
