"""Which budget of a search is spent, from records made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.config import SearchBudget
from tuner.contract import InputError
from tuner.results.budget import Gains, merged, more, spent, words
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord


def budget(**given: Any) -> SearchBudget:
    return SearchBudget.model_validate(given, strict=True)


def record(gpus: float = 1.0, price: float | None = 2.0) -> SearchRecord:
    """Eight trials on two workers with a GPU each, 61 s, 678,000 tokens."""
    tape = searches.finished()
    opening = {**tape.events[0].details, "gpus_per_trial": gpus, "price_per_gpu_hour": price}
    tape.events[0] = Event(Kind.SEARCH, time=tape.events[0].time, details=opening)
    return tape.record


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"tokens": 678_000}, "tokens", "the budget of 678k tokens is spent"),
        ({"tokens": "678001"}, None, ""),
        ({"wall_time": "1min"}, "wall_time", "the budget of 1min on the clock is spent"),
        ({"wall_time": "62 s"}, None, ""),
        ({"gpu_hours": 0.0338}, "gpu_hours", "the budget of 0.0338 GPU-hours is spent"),  # 122 s
        ({"gpu_hours": 0.034}, None, ""),
        ({"money": 0.0677}, "money", "the budget of 0.0677 is spent (2 a GPU-hour)"),
        ({"money": 0.068}, None, ""),
        ({"tokens": 1, "wall_time": "1s"}, "tokens", "the budget of 1 tokens is spent"),
        ({}, None, ""),
    ],
)
def test_whichever_is_spent(given: dict[str, Any], kind: str | None, text: str) -> None:
    found = spent(record(), budget(**given))
    assert (found and found.kind, found.text if found else "") == (kind, text)


def test_seconds_that_passed_since_the_last_event_count() -> None:
    assert spent(record(), budget(wall_time="62 s"), later_s=1.5)
    assert spent(record(), budget(gpu_hours=0.034), later_s=1.5)
    assert spent(record(gpus=0.0), budget(gpu_hours=0.001), later_s=1e6) is None, "no GPU is held"
    assert spent(record(price=None), budget(money=0.001)) is None


def ended(*values: float, every: float = 10.0) -> SearchRecord:
    """Trials one after another, each with this best value, `every` seconds apart."""
    tape = searches.Tape(num_trials=100, workers=1)
    for number, value in enumerate(values):
        tape.start(number, searches.RECIPE_PARAMS)
        tape.setup(number)
        tape.time += every - 4
        tape.evaluate(number, searches.STEPS, value)
        tape.end(number, searches.BUDGET)
    return tape.record


@pytest.mark.parametrize(
    ("values", "following", "ends"),
    [
        ((4.0, 3.0, 2.999, 3.5, 2.998), 3, "the last 3 trials gained 0.067%, less than 1%"),
        ((4.0, 3.0, 2.999, 3.5, 2.9), 3, ""),
        ((4.0, 3.0, 3.0), 3, ""),
        ((4.0, 3.0, 3.0, 3.0), 3, ""),
        ((4.0, 3.0, 3.0, 3.0, 3.0), 3, "the last 3 trials gained 0%, less than 1%"),
        ((4.0, 3.0, 2.999, 3.5, 2.998), "29s", "the last 29s gained 0.067%, less than 1%"),
        ((4.0, 3.0, 2.999, 3.5, 2.998), "2min", ""),
        ((), 1, ""),
    ],
)
def test_a_search_that_gains_no_more(values: tuple[float, ...], following: int | str, ends: str) -> None:
    found = spent(ended(*values), budget(until={"gain_below": "1%", "next": following}))
    assert (found.text if found else "") == ends


def test_gains_taken_in_one_by_one_are_those_of_the_whole_record() -> None:
    whole = ended(4.0, 3.0, 2.999, 3.5, 2.998)
    bit_by_bit = Gains(ended())
    for trial in whole.ended:
        bit_by_bit.add(trial)
    until = budget(until={"gain_below": "1%", "next": 3}).until
    assert until is not None
    assert bit_by_bit.ends(until, whole.wall_s) == Gains(whole).ends(until, whole.wall_s) != ""


def test_time_between_two_sessions_is_none_in_which_nothing_was_gained() -> None:
    tape = searches.Tape(num_trials=9, workers=1)
    tape.trial(0, searches.RECIPE_PARAMS, [4.0], searches.BUDGET)
    tape.time += 7200
    tape.say(Kind.SEARCH, details=tape.events[0].details)
    tape.trial(1, searches.RECIPE_PARAMS, [4.0], searches.BUDGET)
    assert spent(tape.record, budget(until={"gain_below": "1%", "next": "1h"})) is None


def test_a_resume_changes_some_amounts() -> None:
    before = budget(tokens="20M", wall_time="2h")
    assert merged(before, {"tokens": "40M"}, "") == budget(tokens="40M", wall_time="2h")
    assert merged(before, {"wall_time": None}, "") == budget(tokens="20M")
    with pytest.raises(InputError, match=r"search\.budget\.tokens: got 'many'") as caught:
        merged(before, {"tokens": "many"}, "--budget")
    assert caught.value.where == "--budget" and "20M" in caught.value.expected


@pytest.mark.parametrize(
    ("of", "given", "doubled"),
    [
        ("tokens", {"tokens": 20_000_000}, "tokens=40M"),
        ("wall_time", {"wall_time": "90 min"}, "wall_time=3h"),
        ("wall_time", {"wall_time": "20 s"}, "wall_time=40s"),
        ("gpu_hours", {"gpu_hours": 1.5}, "gpu_hours=3"),
        ("money", {"money": 20.0}, "money=40"),
        ("until", {"until": {"gain_below": 0.01, "next": 3}}, "until=null"),
        ("tokens", {}, ""),
        ("tokens", {"tokens": "a stranger's"}, ""),
        ("", {}, ""),
    ],
)
def test_what_gives_more(of: str, given: dict[str, Any], doubled: str) -> None:
    found = SearchRecord(spent="spent", spent_of=of, budget=given)
    assert more(found) == doubled
    if doubled:
        key, _, amount = doubled.partition("=")
        from tuner.config.document import parse_value

        merged(SearchBudget.model_validate(given), {key: parse_value(amount, "")}, "")  # what is said can be given


@pytest.mark.parametrize(("tokens", "told"), [(950, "950"), (20e6, "20M"), (1_234_567, "1.23M"), (2e9, "2B")])
def test_numbers_of_tokens(tokens: float, told: str) -> None:
    assert words(tokens) == told
