"""A program's answer is checked before it is sent: the driver must be able to write it into the ledger."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy
import pytest

from tuner.contract import Evaluation, Reason, Setup, Verdict
from tuner.scheduling.wire import MOST_BYTES, REPORT, TRACEBACK, checked, to_result


@pytest.mark.parametrize("number", [2.5, numpy.float32(2.5), numpy.float64(2.5), numpy.array(2.5)])
def test_numbers_become_plain_ones(number: Any) -> None:
    metrics = {"eval_loss": number, "accuracy": number}
    evaluation = Evaluation(numpy.int64(3), 10, metrics=metrics, train_loss=number)  # type: ignore[arg-type]
    report = to_result(checked(evaluation))[REPORT]
    assert [type(value) for value in (*report.metrics.values(), report.train_loss)] == [float] * 3
    assert type(report.step) is int and report.metrics == {"eval_loss": 2.5, "accuracy": 2.5}


def test_what_is_missing_stays_missing_and_nothing_else_becomes_it() -> None:
    assert to_result(checked(Evaluation(3, 10, None)))[REPORT].metrics == {}
    odd = {"accuracy": None, "eval_loss": math.nan}
    report = to_result(checked(Evaluation(3, 10, metrics=odd)))[REPORT]
    assert report.metrics["accuracy"] is None and math.isnan(report.metrics["eval_loss"])


@pytest.mark.parametrize(
    "report",
    [
        "nonsense",
        None,
        Evaluation(3, 10, "low"),  # type: ignore[arg-type]
        Evaluation(3, 10, metrics={"accuracy": "high"}),  # type: ignore[dict-item]
        Evaluation(3, 10, metrics={"accuracy": "x" * MOST_BYTES}),  # type: ignore[dict-item]
        Evaluation(3, 10, 2.0, adapter="x" * (MOST_BYTES + 1)),
        Setup(10, 1, 1, {"lock": threading.Lock()}),
        Setup(10, 1, 1, {"all": list(range(MOST_BYTES))}),
        Verdict(Reason.BUDGET, "a program judges nothing"),
    ],
)
def test_what_cannot_be_written_down_is_refused_in_the_worker(report: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        checked(report)


def test_a_traceback_keeps_its_end() -> None:
    assert to_result(Verdict(Reason.ERROR, "boom"), "x" * 10**6 + "the end")[TRACEBACK].endswith("the end")
