"""`compare`, the list of runs that `status` gives, and the winner that `show` shows, on run folders alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.runs import write_ledger
from tests.tuner.report import searches
from tuner.cli import run
from tuner.results.lock import RunLock


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "first"], "Missing argument 'OTHER'"),
        (["compare", "first", "frist"], "there is no run 'frist'"),
        (["status", "--follow"], "NAME: --follow is about one search"),
        (["status", "--address", "http://x:8265"], "NAME: --address is about one search"),
        (["show", "empty"], "no trial of empty has a validation loss that can be compared"),
    ],
)
def test_what_cannot_be_is_said(runs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "runs" / "empty").mkdir()
    write_ledger(runs / "runs" / "empty", searches.Tape(name="empty").events)
    assert run(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""


def test_status_without_a_name_lists_the_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "runs" / "broken").mkdir()
    (runs / "runs" / "broken" / "trials.jsonl").write_text("{\n{}\n")
    (runs / "runs" / "not-a-run").mkdir()
    lock = RunLock(runs / "runs" / "gone")
    try:
        assert run(["status"]) == 0
        told = {row.split()[0]: row for row in capsys.readouterr().out.splitlines()}
        assert run(["status", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
    finally:
        lock.release()
    assert next(iter(told)) == "run" and set(told) == {"run", "first", "found", "gone", "broken"}
    assert "done" in told["found"] and "16/16" in told["found"] and "trial 2: 5.041" in told["found"]
    assert "running" in told["gone"] and "damaged" in told["broken"]
    assert max(map(len, told.values())) <= 100
    states = {one["name"]: one["state"] for one in listed["runs"]}
    assert states == {"first": "done", "found": "done", "gone": "running", "broken": "damaged"}
    assert run(["status"]) == 0
    assert "interrupted" in capsys.readouterr().out, "its driver is gone"
    assert run(["status", "--storage-path", "nowhere"]) == 0
    assert "no run is in" in capsys.readouterr().out


def test_show_without_a_number_shows_the_winner(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "first"]) == 0
    shown = capsys.readouterr().out
    assert run(["show", "first", "1"]) == 0
    assert capsys.readouterr().out == shown and "the winner" in shown
    assert run(["show", "gone", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 1, "the best so far"


def test_compare_says_who_is_ahead_and_what_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "first", "found"]) == 0
    told = capsys.readouterr().out
    assert "so     first: 4.312, 14.5% below found's 5.041" in told
    rows = [row.split() for row in told.splitlines()]
    assert ["train.learning_rate", "3.0e-4", "1.0e-3"] in rows
    assert not any(row[:1] == ["run.name"] or row[:1] == ["train.lora_r"] for row in rows)
    assert run(["compare", "first", "found", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [one["best"]["trial"] for one in facts["runs"]] == [1, 2]
    assert facts["settings"] == [{"key": "train.learning_rate", "values": [0.0003, 0.001]}]
    assert run(["compare", "found", str(runs / "runs" / "first")]) == 0


def test_compare_warns_of_other_rows(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, print_ in (("one", "aa"), ("two", "bb")):
        tape = searches.Tape(name=name, num_trials=1)
        part = {"source": "x", "files": {"": print_}}
        tape.say(searches.Kind.PREPARED, details={"facts": {"made_of": {"rows": part, "base": {**part, "files": {}}}}})
        tape.trial(0, {}, [7.0], searches.BUDGET)
        (runs / "runs" / name).mkdir()
        write_ledger(runs / "runs" / name, tape.events)
    assert run(["compare", "one", "two"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "but not the same in both: rows; values that are measured on other rows or tokens cannot be compared" in told
