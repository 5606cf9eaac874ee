"""A search by a metric that rises, with other metrics beside it, as it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.tuner.report.searches import BUDGET, PLACES, RECIPE_PARAMS, STEPS, Tape, params, rung
from tuner.contract import Card, Objective, Reason, Verdict
from tuner.report import standing
from tuner.report.curve import BLOCKS, Scale, plot, sparkline
from tuner.report.lines import plain
from tuner.report.plain import PlainView
from tuner.report.summary import Place, summary
from tuner.report.table import leaderboard
from tuner.report.trial import trial_report
from tuner.results.ledger import Kind
from tuner.results.model_card import model_card
from tuner.results.records import SearchRecord
from tuner.watch.gauges import name_of
from tuner.watch.trackers.base import ending_of, metrics_of, summary_of

MATCH = Objective("exact_match", "exact match", "maximize")
LENGTH = Objective("answer_length", "answer length")


class Rises(Tape):
    """A tape of a search by a metric that rises; with `beside`, answer_length is measured from the second evaluation
    on."""

    def __init__(self, *objectives: Objective, num_trials: int = 4) -> None:
        self._beside = len(objectives) > 1
        super().__init__(num_trials=num_trials)
        self.events.clear()
        details = {"name": "first", "num_trials": num_trials, "workers": 2}
        self.say(Kind.SEARCH, details={**details, "objectives": [one.to_dict() for one in objectives]})

    def evaluate(self, number: int, step: int, loss: float | None) -> None:
        metrics = {"exact_match": loss} | ({"answer_length": 900.0 - step} if self._beside and step > 4 else {})
        self._of(Kind.EVALUATION, number, step=step, tokens=step * 2000, metrics=metrics, details={"seconds": 1.0})


def played(
    *objectives: Objective, recipe: Sequence[float | None] = (0.0625, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
) -> Rises:
    tape = Rises(*objectives)
    tape.prepared()
    tape.trial(0, RECIPE_PARAMS, recipe, BUDGET)
    tape.trial(1, params(2.9e-3, 64, "2r", 8), [0.125, 0.3, 0.55, 0.6, 0.61, 0.62, 0.625, 0.6], BUDGET)
    tape.trial(2, params(1.2e-4, 8, "fixed", 8), [0.05, 0.1], rung(1, 0.1, 0.25))
    tape.trial(3, params(4.1e-2, 8, "2r", 8), [0.1, 0.0], Verdict(Reason.DIVERGED, "diverged (0.0 times its first)"))
    return tape


@pytest.fixture
def record() -> SearchRecord:
    return played(MATCH).record


def test_the_highest_value_wins(record: SearchRecord) -> None:
    assert [t.number for t in record.leaderboard] == [1, 0, 2, 3]
    assert record.best is record.trials[1] and record.best.best_value == 0.625
    assert record.best.best and record.best.best.step == PLACES[6], "not the last one, which is lower"
    assert record.gain == 0.25
    assert standing.at_the_end(record) == "trial 1: 0.625, 25.0% above the recipe's 0.500"


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ([0.0] * 8, "trial 1: 0.625, above the recipe's 0.000"),
        ([-0.5] * 8, "trial 1: 0.625, 225.0% above the recipe's -0.500"),
        ([0.625] * 8, "trial 0, the recipe: 0.625; no trial beat the recipe"),
        ([0.75], "trial 0, the recipe: 0.750, 20.0% above trial 1's 0.625; no trial beat the recipe"),
    ],
)
def test_how_far_above_the_recipe(recipe: list[float | None], told: str) -> None:
    assert standing.at_the_end(played(MATCH, recipe=recipe).record) == told


def test_a_trial_below_the_recipe(record: SearchRecord) -> None:
    told = standing.against_recipe(record, record.trials[2])
    assert told == "trial 2: 0.100, 80.0% below the recipe's 0.500"


def test_a_curve_goes_up_where_the_number_does(record: SearchRecord) -> None:
    scale = Scale.of(record)
    drawn = {number: sparkline(trial.points, scale) for number, trial in record.trials.items()}
    assert drawn[1][0] in BLOCKS[:2] and BLOCKS[-1] in drawn[1]
    assert max(drawn[2]) <= BLOCKS[1], "what is far from the best is low"
    rows = plain(plot(record.trials[1])).splitlines()
    assert rows[0].split()[0] == "0.625" and "●" in rows[0]
    assert rows[8].split()[0] == "0.125" and rows[8].split("┤")[1].strip().startswith("●")


def test_words_and_columns_are_those_of_the_objectives() -> None:
    record = played(MATCH, LENGTH).record
    head, first, *_, last = plain(leaderboard(record, 150)).splitlines()
    assert "exact match  answer length  curve" in head and "eval loss" not in head
    assert "0.625        820.000" in first, "the second number at the evaluation that the first is best at"
    assert "0.000        889.000" in last, "of a trial that went wrong, those of its end"
    narrow = plain(leaderboard(record, 60)).splitlines()[0]
    assert "exact match" in narrow and "answer length" not in narrow
    page = plain(trial_report(record, 1, 100))
    assert "best exact match 0.625" in page and "\nexact match\n" in page
    assert "last   exact match 0.600, answer length 800.000" in page
    alone = plain(trial_report(played(MATCH).record, 1, 100))
    assert "\nlast " not in alone, "the curve says it"


def test_plain_lines_tell_what_was_measured() -> None:
    view, tape = PlainView(), played(MATCH, LENGTH)
    told = [text for event in tape.events for text in view.lines(event)]
    assert any(f"trial 0: step 4/{STEPS}, exact_match 0.062" in text for text in told)
    assert any("trial 1 completed: budget, exact_match 0.625, answer_length 820.000" in text for text in told)
    assert any("best so far: trial 1: 0.625, 25.0% above" in text for text in told)


def test_no_number_at_all() -> None:
    tape = Rises(MATCH, num_trials=1)
    tape.trial(0, RECIPE_PARAMS, [None], Verdict(Reason.ERROR, "no exact_match at 4"))
    tape.finish()
    told = plain(summary(tape.record, Place("first"), 120))
    assert "none: no trial ended with an exact match that can be compared" in told


def test_the_card_has_every_objective() -> None:
    record = played(MATCH, LENGTH).record
    card = model_card("first", record, record.trials[1], {}, Card())
    assert "- exact match **0.625000** at step 80 of 100\n- answer length at that step: 820.000000\n" in card
    assert "## Exact match\n\n| step | tokens | exact match | answer length |\n| ---: | ---: | ---: | ---: |\n" in card
    assert "| 4 | 8,000 | 0.1250 | - |\n| 11 | 22,000 | 0.3000 | 889.0000 |" in card


def test_gauges_are_named_by_them() -> None:
    assert name_of(MATCH) == "tuner_exact_match"
    assert {name_of(Objective(name)) for name in ("step", "trials", "memory_bytes")} == {
        "tuner_step_of_program", "tuner_trials_of_program", "tuner_memory_bytes_of_program",
    }  # fmt: skip


def test_trackers_have_them_by_name() -> None:
    record = played(MATCH, LENGTH).record
    trial = record.trials[1]
    logged = metrics_of(trial, trial.points[1])
    assert (logged["exact_match"], logged["answer_length"]) == (0.3, 889.0) and "eval_loss" not in logged
    assert ending_of(trial).measured == {"best_exact_match": 0.625}
    assert summary_of(record)["best_exact_match"] == 0.625
    assert "best_eval_loss" not in summary_of(record)
