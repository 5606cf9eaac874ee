"""What a program answers, before it travels: the driver must be able to write it down."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy
import pytest

from tuner.contract import METRIC, Evaluation, Reason, Setup, Verdict
from tuner.scheduling.wire import MOST_BYTES, REPORT, TRACEBACK, checked, to_result


@pytest.mark.parametrize("number", [2.5, numpy.float32(2.5), numpy.float64(2.5), numpy.array(2.5)])
def test_numbers_become_plain_ones(number: Any) -> None:
    result = to_result(checked(Evaluation(numpy.int64(3), 10, number, train_loss=number)))  # type: ignore[arg-type]
    report = result[REPORT]
    assert type(result[METRIC]) is float and type(report.eval_loss) is float and type(report.train_loss) is float
    assert type(report.step) is int and report.eval_loss == 2.5


def test_none_stays_none_beside_a_metric_that_is_always_a_float() -> None:
    result = to_result(Evaluation(3, 10, None))
    assert math.isnan(result[METRIC]) and result[REPORT].eval_loss is None


@pytest.mark.parametrize(
    "report",
    [
        "nonsense",
        None,
        Evaluation(3, 10, "low"),  # type: ignore[arg-type]
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
