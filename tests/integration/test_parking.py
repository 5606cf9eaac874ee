"""A scheduling algorithm that parks trials, in searches: unpacked, packed, and on a real base."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import invariants
from tests.programs.parking import FACTOR, PARKING
from tuner.config import load_experiment
from tuner.contract import Reason
from tuner.driver.session import Outcome, run_search
from tuner.results.ledger import Kind, read_ledger
from tuner.results.records import RECIPE, SearchRecord
from tuner.scheduling.algorithms import ALGORITHMS

Toy = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def parking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "asha", PARKING)


def check_parked(folder: Path, record: SearchRecord, rung: int) -> list[int]:
    """Checks that every trial but the recipe was parked once, at the rung, and that the best third went on from there
    and the others ended there. Gives the numbers of those that went on."""
    events = list(read_ledger(folder / "trials.jsonl"))
    others = sorted(record.trials.keys() - {RECIPE})
    assert sorted(event.number or 0 for event in events if event.event is Kind.PARKED) == others
    went_on = []
    for number in others:
        trial, own = record.trials[number], [event for event in events if event.number == number]
        after = own[[event.event for event in own].index(Kind.PARKED) + 1 :]
        if after[0].event is Kind.STARTED:
            went_on.append(number)
            setup = next(event for event in after if event.event is Kind.SETUP)
            assert setup.details["resumed_step"] == rung and trial.points[-1].step > rung
            assert trial.reason is not Reason.RUNG
        else:
            assert trial.ending == f"pruned: parked at {rung}, others went on" and trial.points[-1].step == rung
    at_rung = {n: next(p for p in t.points if p.step == rung).value or math.inf for n, t in record.trials.items()}
    best = sorted(at_rung, key=lambda number: at_rung[number])[: len(at_rung) // FACTOR]
    assert {*best} - {RECIPE} <= {*went_on} and went_on
    return went_on


@pytest.mark.parametrize("how", ["unpacked", "packed"])
def test_parked_trials_keep_their_state_and_the_best_go_on(toy: Toy, how: str) -> None:
    more: dict[str, Any] = {"resources__max_concurrent_trials": 2}
    if how == "packed":
        more = {"run__program": "tests.programs.pack:Pack", "resources__trials_per_gpu": 2}
    outcome = toy(search__num_trials=9, scheduler__grace_period=3, scheduler__flatline=None, **more)
    record = invariants.check(outcome.path, num_trials=9, exit_code=outcome.exit_code)
    assert outcome.exit_code == 0 and record.outcome == "done"
    check_parked(outcome.path, record, 3)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [1, 2])
def test_on_a_base_they_go_on_from_the_rung(ray: None, tmp_path: Path, packed: int) -> None:
    """The first rung comes within two seconds, when no state would be saved for the time that it costs."""
    flags = {
        "search.sampler": "random", "search.num_trials": 6, "data.max_validation_rows": 32, "train.max_steps": 18,
        "scheduler.grace_period": 4, "scheduler.flatline": None, "resources.trials_per_gpu": packed,
        "run.name": "parked", "run.storage_path": str(tmp_path),
    }  # fmt: skip
    outcome = run_search(load_experiment(None, (), flags))
    record = invariants.check(outcome.path, num_trials=6, exit_code=outcome.exit_code)
    for number in check_parked(outcome.path, record, 4):
        steps = [point.step for point in record.trials[number].points]
        assert steps == [point.step for point in record.trials[RECIPE].points]
