from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.settings import TrainSettings, steps


@pytest.mark.parametrize(
    ("effective", "cap", "micro", "accumulation"),
    [(16, 8, 8, 2), (12, 8, 6, 2), (7, 4, 1, 7), (4, 8, 4, 1), (1, 8, 1, 1), (24, 16, 12, 2)],
)
def test_batch(effective: int, cap: int, micro: int, accumulation: int) -> None:
    assert steps.split(effective, cap) == steps.BatchSplit(micro, accumulation)


@given(st.integers(1, 2048), st.integers(1, 64))
def test_the_product_is_exactly_the_effective_batch(effective: int, cap: int) -> None:
    shape = steps.split(effective, cap)
    assert shape.micro * shape.accumulation == effective
    assert shape.micro <= cap


@pytest.mark.parametrize(
    ("rows", "effective", "epochs", "expected"),
    [(160, 16, 1.0, 10), (161, 16, 1.0, 11), (160, 16, 0.5, 5), (5, 16, 1.0, 1), (160, 16, 0.01, 1), (36, 16, 2.0, 6)],
)
def test_max_steps_from_epochs(rows: int, effective: int, epochs: float, expected: int) -> None:
    assert steps.max_steps(TrainSettings(effective_batch_size=effective, num_train_epochs=epochs), rows) == expected


def test_max_steps_as_given() -> None:
    assert steps.max_steps(TrainSettings(max_steps=7), 1000) == 7


@pytest.mark.parametrize(("ratio", "total", "expected"), [(0.0, 100, 0), (0.03, 100, 3), (0.03, 10, 1), (0.1, 5, 1)])
def test_warmup(ratio: float, total: int, expected: int) -> None:
    assert steps.warmup_steps(ratio, total) == expected
