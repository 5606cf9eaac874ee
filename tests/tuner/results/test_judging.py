"""Judges and metrics of the user's own, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.contract import InputError, Scored, ScoredRow, Scores
from tuner.results import own_functions
from tuner.results.judging import judge

MODULE = """
import time

def longer(prompt, reference, one, other):
    return len(one) - len(other)

def first(prompt, reference, one, other):
    return 1

def slow(prompt, reference, one, other):
    if one == "c":
        time.sleep(30)
    return 0

def words(prompt, reference, one, other):
    return "one"

def length(prompt, reference, answer):
    return len(answer)

def careless(prompt, reference, answer):
    return 1 / (len(answer) - 1)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


def scored() -> Scored:
    rows = [ScoredRow(f"rows:{at}", 3, "p", "r", answered) for at, answered in enumerate((True, True, False, True))]
    base = Scores("base", [1.0] * 4, ["aa", "b", None, "c"])
    return Scored(rows, [base, Scores("winner", [1.0] * 4, ["a", "bb", None, "c"])])


def test_a_judge_is_asked_in_both_orders() -> None:
    found = judge(own_functions.judge("mine:longer", (), 5.0), scored())
    assert (found.one, found.other) == ("winner", "base")
    assert found.verdicts == [-1.0, 1.0, None, 0.0] and found.swayed == 0 and not found.failed


def test_a_judge_that_prefers_the_first_place_decides_nothing() -> None:
    found = judge(own_functions.judge("mine:first", (), 5.0), scored())
    assert found.verdicts == [0.0, 0.0, None, 0.0] and found.swayed == 3


def test_a_judge_that_takes_too_long_is_asked_no_further() -> None:
    found = judge(own_functions.judge("mine:slow", (), 0.5), scored())
    assert found.verdicts == [0.0, 0.0, None, None] and found.asked == 2
    assert "at rows:3: mine.py:slow did not come back within 0.5 s" in found.failed
    assert "time.sleep(30)" in found.failed


def test_a_judge_that_gives_no_number() -> None:
    found = judge(own_functions.judge("mine:words", (), 5.0), scored())
    assert found.failed == "at rows:0: gave 'one', and not a number" and found.asked == 0


def test_a_metric_goes_on_after_a_call_that_failed() -> None:
    function = own_functions.metric("mine:careless", ())
    value, why = function.call("p", "r", "a")
    assert (
        value is None
        and "mine.py:careless raised ZeroDivisionError" in why
        and "mine.py:22, in careless: return 1 / " in why
    )
    assert function.call("p", "r", "abc") == (0.5, "")
    function.close()


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("mine:longer", "takes (prompt, reference, one, other), and is called with a prompt, a reference, an answer"),
        ("mine:lenght", "did you mean `length`?"),
        ("nothing:length", "no module `nothing`"),
        ("os:getcwd", "nothing of that is ever run"),
    ],
)
def test_what_is_no_metric_is_refused_before_anything_runs(target: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        own_functions.metric(target, ())
    assert what in caught.value.what
