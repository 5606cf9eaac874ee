"""The page of a report as text; tests/integration/test_report_page.py opens it in a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.report.facts import Facts
from tuner.report.page.answers import section
from tuner.report.page.document import data_script, document
from tuner.report.page.search import MOST_BYTES, page
from tuner.report.summary import Place

pytest.importorskip("plotly")

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- {{x}} %{y} <b>bold</b>"


@pytest.fixture(scope="module")
def found() -> str:
    return made(searches.found())


def made(tape: searches.Tape, **more: Any) -> str:
    return page(Facts(tape.record, Place(tape.record.name, kept=("adapter",)), searches.LABELS, **more))


def figures(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_has_every_plot_and_the_library_once(found: str) -> None:
    text = found
    assert len(text.encode()) < MOST_BYTES / 2
    places = re.findall(r'<div class="plot" id="([\w-]+)">', text)
    assert places == list(figures(text)) and len(places) == 6 + 4
    assert {place.rpartition("-")[0] for place in places} == {
        "curves", "history", "importance", "slices", "parallel", "rungs", "spending",
    }  # fmt: skip
    packed = re.search(r'<script type="text/plain" id="library">([^<]*)</script>', text)
    assert packed is not None and text.count("<script") == 4
    library = gzip.decompress(base64.b64decode(packed[1])).decode()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None and "plotly.js v" in library
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and "unsafe-eval" not in policy[1]
    for code in (script[1], library):  # no other script may run
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert "script-src 'sha256-" in policy[1] and "default-src 'none'" in policy[1]


def test_the_best_curve_of_the_parallel_plot_is_the_winners(found: str) -> None:
    tape = searches.found()
    winner = figures(found)["parallel-0"]["data"][-1]
    assert winner["line"]["color"] == "#2da44e"
    assert float(winner["customdata"][0][1]) == pytest.approx(tape.record.best.best_value, rel=1e-3)  # type: ignore[union-attr]


def test_texts_of_others_stay_text() -> None:
    tape = searches.Tape(name="first", num_trials=12)
    tape.prepared(EVIL)
    choices = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [EVIL, "plain"]}})
    drawn = {**searches.DRAWN_FROM, EVIL: choices}
    for number in range(12):
        point = {**searches.params(1e-3 / (1 + number), 8, "2r", 8), EVIL: (EVIL, "plain")[number % 2]}
        tape.trial(number, point, [7.0, 5.0 + number / 10], searches.BUDGET, drawn)
    tape.finish()
    text = made(tape, resolved={"about": {"versions": {EVIL: EVIL}}})
    assert EVIL[:20] not in text and "<img" not in text and "<!--" not in text
    assert text.count("<script") == 4 and text.count("</script>") == 4
    for plot in figures(text).values():
        for told in re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(plot)):
            assert "<img" not in told and "<script" not in told and "<b>bold" not in told and "%{y} <" not in told


def test_a_large_search_stays_below_the_limit() -> None:
    tape = searches.Tape(name="large", num_trials=1500)
    more = {f"a_parameter_with_a_long_name_{at}": "a value of some length" for at in range(20)}
    for number in range(1500):
        point = {name: f"{value} {number % 7}" for name, value in more.items()}
        tape.trial(number, point, [7.0, 6.0, 5.0 + number / 1500], searches.BUDGET)
    tape.finish()
    text = made(tape)
    assert len(text.encode()) < MOST_BYTES
    assert "more trials: --format csv has all of them" in text


@pytest.mark.parametrize("name", ["unprepared", "hopeless", "halted", "running", "one_trial"])
def test_every_search_has_a_page(name: str) -> None:
    assert "<h2>Best</h2>" in made(getattr(searches, name)())


def test_a_ledger_that_contradicts_itself_costs_one_plot() -> None:
    """A parameter that was drawn from a range in one trial and from words in the next."""
    tape = searches.Tape(num_trials=10)
    for number in range(10):
        drawn = {**searches.DRAWN_FROM, **({"lora_r": searches.choices("x", "y")} if number % 2 else {})}
        point = {**searches.params(1e-3, 8, "2r", 8), **({"lora_r": "x"} if number % 2 else {})}
        point["learning_rate"] = 1e-3 / (1 + number)
        tape.trial(number, point, [7.0, 5.0 + number / 10], searches.BUDGET, drawn)
    tape.finish()
    text = made(tape)
    assert {"curves-0", "history-0", "spending-0"} <= set(figures(text))


def test_no_text_ends_a_script_or_opens_a_comment() -> None:
    told = data_script("x", {"a": f"{EVIL}\u2028\u2029&amp;"})
    assert told.count("<") == 2 and "&" not in told and "\u2028" not in told
    inside = told.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert json.loads(inside)["a"] == f"{EVIL}\u2028\u2029&amp;"


def test_a_page_without_a_script_runs_none() -> None:
    assert "script-src" not in document(EVIL, ["<p>x</p>"], "") and EVIL not in document(EVIL, [], "")


def evaluation(text: str) -> dict[str, Any]:
    """An evaluation of two candidates, in which others wrote `text` wherever text stands."""
    measures = {
        "loss per token": {"value": 4.1, "low": 3.9, "high": 4.3},
        text: {"value": 0.5, "low": None, "high": None},
    }
    rows = [{"row": f"{at} {text}", "prompt": text, "reference": text, "answers": {"base": "b", text: text}}
            for at in range(20)]  # fmt: skip
    named = [{"name": "base", "measures": {}}, {"name": text, "measures": measures}]
    changed = {"better": [rows[7]], "worse": [rows[9]]}
    return {"data": text, "rows": 20, "answers": 20, "candidates": named, "changed": changed, "answered": rows}


def test_what_the_model_says_has_the_rows_that_changed_first() -> None:
    text = "".join(section(evaluation("winner")))
    assert "What the model says" in text and "winner: 20 rows, answers to 20" in text
    assert "4.100 (3.900 to 4.300)" in text and "missing" in text
    shown = re.findall(r'<div class="answers"><p class="soft">(\d+) winner', text)
    assert shown == ["7", "9", "0", "1", "2", "3", "4", "5", "6", "8", "10", "11"]
    assert section({}) == []


def test_what_others_wrote_into_an_evaluation_is_text() -> None:
    text = made(searches.found(), evaluation=evaluation(EVIL))
    assert text.count("<script") == 4 and "<img src=x" not in text and "&lt;/script&gt;" in text


@pytest.mark.parametrize(
    "odd",
    [{"candidates": 3}, {"candidates": [3, {}]}, {"candidates": [{"name": "a", "measures": [1]}], "answered": {"a": 1}},
     {"candidates": [{"name": "a", "measures": {"x": {"value": "y"}}}], "changed": [1], "answered": [1, {"row": 2}]}],
)  # fmt: skip
def test_an_evaluation_of_another_shape_does_no_harm(odd: dict[str, Any]) -> None:
    assert "winner" not in "".join(section(odd))
