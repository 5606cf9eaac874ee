"""Which parameters mattered, on searches of which it is known. A call takes half a second, so tests share searches."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.contract import Reason, Verdict
from tuner.results.records import SearchRecord
from tuner.study.importance import LEAST, MOST, importances, read_distribution


def by_rate(point: dict[str, Any]) -> float:
    return 4.0 - 0.4 * math.log10(point["learning_rate"])


def test_the_parameter_that_decides_is_found_and_no_other() -> None:
    record = searches.drawn(40, by_rate).record
    found = importances(record)
    assert found is not None and found.trials == 40 and found == importances(record)
    first, *others = found.parameters
    assert first.name == "learning_rate" and first.matters and first.share > 0.8
    assert 0.5 < first.low <= first.share <= first.high <= 1
    assert {one.name for one in others} == {"lora_r", "lora_alpha_mode", "effective_batch_size"}
    assert not any(one.matters for one in others)
    assert sum(one.share for one in found.parameters) == pytest.approx(1)


def test_a_choice_that_decides_is_found() -> None:
    found = importances(searches.drawn(24, lambda point: 4.0 + (point["lora_alpha_mode"] != "2r")).record)
    assert found is not None and found.parameters[0].name == "lora_alpha_mode" and found.parameters[0].matters


def test_trials_that_could_not_be_trained_count_as_the_worst() -> None:
    """Without them nothing would say that high rates are bad: all that trained are equally good."""
    tape = searches.Tape(num_trials=24)
    chance = random.Random(3)
    for number in range(24):
        point = searches.params(1e-5 * 300 ** (number / 24), 8, "2r", chance.choice((8, 16)))
        if number >= 10:
            tape.trial(number, point, [7.0], Verdict(Reason.DIVERGED, "diverged (loss nan)"), searches.DRAWN_FROM)
        else:
            tape.trial(number, point, [7.0, 5.0 + 0.01 * (number % 3)], searches.BUDGET, searches.DRAWN_FROM)
    found = importances(tape.record)
    assert found is not None and found.trials == 24
    assert found.parameters[0].name == "learning_rate" and found.parameters[0].matters


@pytest.mark.slow
def test_chance_alone_is_seldom_taken_for_a_finding() -> None:
    """Four parameters that do nothing: at most 5% of searches may name one, 3 of 60; twice that is allowed."""
    named = 0
    for seed in range(60):
        chance = random.Random(1000 + seed)
        found = importances(searches.drawn(16, lambda point, drawn=chance: drawn.gauss(4.0, 0.1), seed).record)
        assert found is not None
        named += any(one.matters for one in found.parameters)
    assert named <= 6, named


@pytest.mark.slow
def test_a_large_search_is_judged_by_a_part_of_it() -> None:
    found = importances(searches.drawn(MOST + 40, by_rate).record)
    assert found is not None and found.trials == MOST and found.parameters[0].name == "learning_rate"


def test_few_trials_and_old_ledgers_say_nothing() -> None:
    assert importances(searches.drawn(LEAST - 1, by_rate).record) is None
    assert importances(searches.many().record) is None, "its ledger has no distributions"
    assert importances(SearchRecord()) is None


def ranged(kind: str, **attributes: Any) -> str:
    return json.dumps({"name": f"{kind}Distribution", "attributes": attributes})


HOSTILE = (
    ranged("Float", low=-math.inf, high=math.inf, log=False, step=None),
    ranged("Float", low=math.nan, high=math.nan, log=False, step=None),
    ranged("Float", low=0.0, high=1e308, log=False, step=1e-300),
    ranged("Float", low=1e-5, high=1e308, log=True, step=None),
    ranged("Int", low=0, high=10**400, log=False, step=1),
    ranged("Int", low=1, high=2**53, log=True, step=1),
    ranged("Categorical", choices=[0.1, 0.2]),
    ranged("Categorical", choices=list(range(5000))),
)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"name": "os.system", "attributes": {}}', *HOSTILE[-1:]])
def test_what_is_no_distribution_of_a_space_is_none(text: str) -> None:
    assert read_distribution(text) is None


def test_a_strangers_distributions_break_nothing() -> None:
    """Every one of them in one ledger, for a parameter of its own."""
    told = {f"p{at}": text for at, text in enumerate(HOSTILE)}
    events = [
        replace(event, params={**event.params, **dict.fromkeys(told, 0.001)},
                details={"distributions": {**event.details["distributions"], **told}})
        if event.params and "distributions" in event.details
        else event
        for event in searches.drawn(10, by_rate).events
    ]  # fmt: skip
    found = importances(SearchRecord.fold(events))
    assert found is None or all(0 <= one.share <= 1 for one in found.parameters)
