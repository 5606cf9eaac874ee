"""What the GPUs of a search cost, wherever that is said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.tuner.report import searches
from tuner.report import formatting as words
from tuner.report.facts import Facts
from tuner.report.lines import plain
from tuner.report.machine import dump, search_json
from tuner.report.summary import Place, summary


def priced(price: float | None = 36.0, gpus: float = 1.0) -> searches.Tape:
    tape = searches.finished()
    details = {**tape.events[0].details, "gpus_per_trial": gpus, "price_per_gpu_hour": price}
    tape.events[0] = replace(tape.events[0], details=details)
    return tape


def test_gpus_that_wait_cost_as_much_as_gpus_that_train() -> None:
    record = priced().record
    assert record.held_gpu_s == 2 * record.wall_s > record.gpu_s  # two workers, a GPU each
    assert record.price == pytest.approx(2 * 61 / 3600 * 36)


def test_the_time_between_two_sessions_costs_nothing() -> None:
    tape, once = priced(), priced().record.price
    opening = tape.events[0]
    tape.time += 3600
    tape.say(opening.event, details=opening.details)
    tape.finish()
    assert tape.record.price == pytest.approx((2 * 61 + 2 * 1) / 3600 * 36) != once


def test_the_end_the_report_and_json_say_it() -> None:
    record, place = priced().record, Place("first")
    told = "1.22 for 0.034 GPU-hours held, at 36"
    assert told in plain(summary(record, place, 100))
    assert Facts(record, place).cost["price"] == told
    assert json.loads(dump(search_json(record, "first")))["price"] == pytest.approx(1.22)


@pytest.mark.parametrize("tape", [priced(price=None), priced(gpus=0.0)])
def test_nothing_is_said_without_a_price_or_without_gpus(tape: searches.Tape) -> None:
    assert " held, at " not in plain(summary(tape.record, Place("first"), 100))
    assert "price" not in Facts(tape.record, Place("first")).cost


@pytest.mark.parametrize(("amount", "told"), [(0, "0.00"), (0.0042, "0.0042"), (3.2, "3.20"), (1234.5, "1,234")])
def test_amounts(amount: float, told: str) -> None:
    assert words.money(amount) == told
