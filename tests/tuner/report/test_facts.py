"""What a report says, from records made by hand."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.report.exports import as_csv, as_json, as_markdown
from tuner.report.facts import Facts
from tuner.report.summary import Place

KEPT = ("adapter (1.2 MB)", "train.yaml")


def facts(tape: searches.Tape, **more: Any) -> Facts:
    return Facts(tape.record, Place(tape.record.name, kept=KEPT), searches.LABELS, **more)


@pytest.fixture(scope="module")
def found() -> Facts:
    """Of a search in which a parameter matters; what it found is looked for once."""
    return facts(
        searches.found(), resolved=about("python3", "-m", "tuner", "search", "my file.yaml", "--name", "found")
    )


def about(*command: Any) -> dict[str, Any]:
    return {"about": {"command": list(command), "versions": {"tuner": "0.1.0", "torch": "2.13.0"}}}


def test_the_time_of_all_endings_is_that_of_the_workers() -> None:
    for tape in (searches.finished(), searches.found(), searches.recorded(), searches.many()):
        told = facts(tape)
        spent = told.spending
        assert sum(one.seconds for one in spent) == pytest.approx(tape.record.worker_s, rel=0.02)
        assert sum(one.tokens for one in spent) == tape.record.tokens
        assert sum(one.trials for one in spent) == len(tape.record.trials)
    names = {one.ending for one in facts(searches.finished()).spending}
    assert {
        "completed: budget",
        "completed: flat",
        "pruned: rung 1",
        "pruned: diverged",
        "failed: out of memory",
    } <= names


def test_time_of_attempts_that_were_lost_is_told_apart() -> None:
    spent = facts(searches.lost()).spending
    assert [one.ending for one in spent][-1] == "attempts that were lost" and spent[-1].seconds > 0
    assert sum(one.seconds for one in spent) == pytest.approx(searches.lost().record.worker_s)


def test_rungs_count_who_was_compared_and_who_was_stopped() -> None:
    record = searches.found().record
    first, second = facts(searches.found()).rungs
    behind = {number for number, trial in record.trials.items() if str(trial.reason) == "rung"}
    assert {number for number, _, stopped in first.values if stopped} == behind and first.stopped == 6
    assert len(first.values) == 16 and len(second.values) == 10 and second.stopped == 0
    assert all(value == record.trials[number].points[1].value for number, value, _ in first.values)
    assert facts(searches.finished()).rungs == [], "its ledger has no ladder"


def test_what_to_run_again_is_what_was_run() -> None:
    told = facts(
        searches.found(), resolved=about("python3", "-m", "tuner", "search", "my file.yaml", "--name", "found")
    )
    assert told.reproduce["the search"] == "python -m tuner search 'my file.yaml' --name found"
    assert told.reproduce["the winner"] == "python -m tuner train runs/found/best/train.yaml"
    assert told.versions == {"tuner": "0.1.0", "torch": "2.13.0"}
    assert told.next[0] == "python -m tuner train runs/found/best/train.yaml --seed 1 --name found-seed-1"
    assert "python -m tuner report found" not in told.next


@pytest.mark.parametrize(
    "command",
    [("rm", "-rf", "/", "search"), ("python", "-c", "import os", "search"), ("python", "-m", "tuner", "export", "x"),
     ("python", "-m", "tuner", "search", "a\x1b[2J"), ("python", "-m", "tuner", "search", 3), "python -m tuner search",
     ("python", "-m", "tuner", "search", "x" * 5000)],
)  # fmt: skip
def test_a_strangers_command_is_not_shown(command: Any) -> None:
    told = facts(searches.found(), resolved={"about": {"command": command, "versions": ["x"]}})
    assert "the search" not in told.reproduce and told.versions == {}


def test_a_shell_sees_no_more_than_words() -> None:
    told = facts(searches.found(), resolved=about("python", "-m", "tuner", "search", "; rm -rf ~ #", "$(id)"))
    assert told.reproduce["the search"] == "python -m tuner search '; rm -rf ~ #' '$(id)'"


def test_csv_has_a_row_for_every_trial() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(facts(searches.finished())))))
    assert [row["trial"] for row in rows] == ["1", "3", "0", "7", "2", "4", "5", "6"]
    assert rows[0]["eval_loss"] == "4.312" and rows[0]["learning_rate"] == "0.0029" and rows[0]["status"] == "completed"
    assert rows[-1]["reason"] == "out_of_memory" and rows[-1]["eval_loss"] == "" and rows[6]["eval_loss"] == ""


def test_csv_has_no_formula() -> None:
    tape = searches.Tape(num_trials=1)
    tape.trial(0, {"=cmd|' /C calc'!A0": "@SUM(1)", "status": "-1+1", "rate": -1.5}, [7.0], searches.BUDGET)
    text = as_csv(facts(tape))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["'=cmd|' /C calc'!A0"] == "'@SUM(1)" and row["parameter status"] == "'-1+1" and row["rate"] == "-1.5"


def test_markdown_has_all_of_it_and_nothing_steers(found: Facts) -> None:
    text = as_markdown(found)
    for heading in ("**Best:** trial 2: 5.041", "**Noise:** not measured", "**Cost:**", "**Next:**", "## Leaderboard",
                    "## What mattered", "## Rungs", "## Where the time went", "## To run it again"):  # fmt: skip
        assert heading in text, heading
    assert "learning\\_rate ends at its upper bound 3e-3: search higher" in text
    tape = searches.Tape(name="bad", num_trials=2)
    for number in range(2):
        tape.trial(number, {"a|b\n# c": f"<img src=x>`{number}` [x](http://x)"}, [7.0], searches.BUDGET)
    hostile = as_markdown(facts(tape))
    assert not re.search(r"(?<!\\)[<`\[]", re.sub(r"(?ms)^```.*?^```", "", hostile)) and "\n# c" not in hostile
    table = [line for line in hostile.splitlines() if line.startswith("| ") and "img" in line]
    assert len(table) == 2 and all(line.replace("\\|", "").count("|") == 6 for line in table)


def test_json_has_what_status_has_and_what_was_found(found: Facts) -> None:
    told = json.loads(as_json(found, Path("runs/found")))
    assert told["name"] == "found" and len(told["leaderboard"]) == 16
    assert told["importances"][0]["name"] == "learning_rate" and told["importances"][0]["matters"] is True
    assert told["edges"] == [{"name": "learning_rate", "side": "upper", "bound": 0.003, "beyond": 0.006}]
    assert [rung["stopped"] for rung in told["rungs"]] == [6, 0] and told["noise"] is None


@pytest.mark.parametrize("name", ["unprepared", "hopeless", "halted", "running", "parked", "one_trial", "recipe_wins"])
def test_every_search_has_a_report(name: str) -> None:
    told = facts(getattr(searches, name)())
    assert as_markdown(told).startswith("# ") and as_csv(told).startswith("trial,")
    assert json.loads(as_json(told, Path("x")))["said"]["best"]
