"""What a space may draw is checked against what was prepared, before the first trial, on real Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.contract import InputError
from tuner.driver.session import Outcome
from tuner.results.ledger import Kind, read_ledger

CHOOSY = "tests.programs.choosy:Choosy"


def space(*sizes: int) -> dict[str, Any]:
    return {
        "parameters": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
            "batch_size": {"type": "choice", "values": list(sizes)},
        }
    }


def test_a_value_with_which_no_trial_can_train_ends_the_search_before_its_first_trial(
    toy: Callable[..., Outcome], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="batch_size 32 fits no row"):
        toy(run__program=CHOOSY, search__num_trials=2, search__space=space(8, 32))
    assert not (tmp_path / "toy").exists()


def test_what_was_checked_may_be_noted(toy: Callable[..., Outcome]) -> None:
    outcome = toy(run__program=CHOOSY, search__num_trials=1, search__space=space(8, 16))
    (prepared,) = [e for e in read_ledger(outcome.path / "trials.jsonl") if e.event is Kind.PREPARED]
    assert "checked ['batch_size']" in prepared.details["notes"]
