"""What a search found, in words."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.tuner.report import searches
from tuner.report.found import Edge, found, noise
from tuner.report.summary import Place, next_commands
from tuner.results.records import SearchRecord

KEPT = ("adapter (1.2 MB)",)


def drawn_from(tape: searches.Tape, name: str, kind: str, **attributes: Any) -> SearchRecord:
    """The record of a tape with one parameter drawn from something else."""
    text = json.dumps({"name": f"{kind}Distribution", "attributes": attributes})
    events = [
        replace(event, details={"distributions": {**event.details["distributions"], name: text}})
        if "distributions" in event.details
        else event
        for event in tape.events
    ]
    return SearchRecord.fold(events)


def test_it_names_what_mattered_and_where_to_go_on() -> None:
    record = searches.found().record
    known = found(record)
    told = known.sentences
    assert len(told) == 2
    assert told[0].startswith("learning_rate mattered most (") and "in resamples; the best 6 of 16 trials: " in told[0]
    assert told[1] == "learning_rate ends at its upper bound 3e-3: search higher"
    place = Place("found", kept=KEPT, keys={"learning_rate": "train.learning_rate"})
    assert next_commands(record, place, known)[0] == (
        "python -m tuner train runs/found/best/train.yaml --set train.learning_rate=6e-3 --name found-higher"
    )
    for other in (Place("found", kept=KEPT), Place("found")):  # its key is not known; nothing was kept
        assert not any("--set" in command for command in next_commands(record, other, known))


def test_a_lower_bound_and_what_lies_below_zero() -> None:
    tape = searches.drawn(16, lambda point: 4.0 + 0.4 * math.log10(point["learning_rate"]), seed=16)
    (edge,) = found(tape.record).edges
    assert (edge.name, edge.side, edge.bound) == ("learning_rate", "lower", 1e-5) and edge.beyond == pytest.approx(5e-6)
    zero = drawn_from(tape, "learning_rate", "Float", step=None, low=0.0, high=0.003, log=False)
    assert found(zero).edges == ()


def test_a_range_of_equal_steps_is_left_by_a_quarter_of_it() -> None:
    record = drawn_from(searches.found(), "learning_rate", "Float", step=None, low=1e-5, high=0.0026, log=False)
    (edge,) = found(record).edges
    assert edge.side == "upper" and edge.beyond == pytest.approx(0.0026 + (0.0026 - 1e-5) / 4)


def test_whole_numbers_stay_whole() -> None:
    record = drawn_from(
        searches.drawn(16, lambda point: -point["lora_r"]), "lora_r", "Int", log=True, low=4, high=64, step=1
    )
    (edge,) = found(record).edges
    assert edge == Edge("lora_r", "upper", 64, 128)


def test_noise_is_not_called_a_finding() -> None:
    chance = random.Random(5)
    told = found(searches.drawn(16, lambda _: chance.gauss(4.0, 0.1)).record).sentences
    assert len(told) == 1 and told[0].startswith("no parameter stands out from chance in 16 trials; ")


def test_one_parameter_is_not_called_important() -> None:
    tape = searches.Tape(num_trials=10)
    for number in range(10):
        point = {"learning_rate": 1e-4 * (1 + number)}
        tape.trial(number, point, [7.0, 5 - 0.1 * number], searches.BUDGET, searches.DRAWN_FROM)
    tape.finish()
    assert found(tape.record).sentences[0] == "the best 6 of 10 trials have learning_rate 5.0e-4 to 1.0e-3"


def test_noise_is_measured_where_settings_ran_twice() -> None:
    tape = searches.Tape(num_trials=5)
    for number, loss in enumerate((4.0, 4.1, 5.0, 5.0, 3.0)):
        rate = (1e-3, 1e-3, 2e-3, 2e-3, 3e-3)[number]
        tape.trial(number, searches.params(rate, 8, "2r", 8), [7.0, loss], searches.BUDGET)
    share, trials = noise(tape.record) or (0.0, 0)
    assert trials == 4 and share == pytest.approx(0.05 / 4.05)
    assert noise(searches.finished().record) is None
