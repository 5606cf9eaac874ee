"""A driver is killed while trials are parked: they wait for the next session, and go on in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import driving, invariants
from tests.chaos.faults import Count
from tests.integration.test_parking import check_parked
from tests.programs.parking import INSTALL
from tuner.results.ledger import Event, Kind, read_ledger
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.chaos


def went_on(events: list[Event]) -> bool:
    """Whether two trials are parked, and one that was parked trains again."""
    record = SearchRecord.fold(events)
    return len(record.parked) >= 2 and any(t.attempt > 1 and t.is_running for t in record.trials.values())


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "packed"])
@pytest.mark.parametrize("when", ["trials wait", "one goes on"])
def test_a_killed_driver_leaves_parked_trials_parked(tmp_path: Path, fault: Count, packed: bool, when: str) -> None:
    run = {"program": "tests.programs.pack:Pack"} if packed else {}
    resources = {} if packed else {"max_concurrent_trials": 2}
    scheduler = ["--set", "scheduler.grace_period=3", "--set", "scheduler.flatline=null"]
    slots = ["--trials-per-gpu", "2"] if packed else []
    driver = driving.toy(
        tmp_path, *scheduler, *slots, train={"pace": 0.2}, trials=9, run=run, resources=resources, code=INSTALL,
    )  # fmt: skip
    before = driver.wait(driving.counting(Kind.PARKED, 2) if when == "trials wait" else went_on)
    family = driver.kill()
    parked = {trial.number for trial in SearchRecord.fold(before).parked}
    assert parked
    again = driving.resume(tmp_path, code=INSTALL)
    code, _, errors = again.end()
    assert code == 0, errors
    after = list(read_ledger(again.folder / "trials.jsonl"))
    invariants.check_kept(before, after)
    record = invariants.check(again.folder, num_trials=9, exit_code=code, family=[*family, *again.family])
    check_parked(again.folder, record, 3)
    fault("kill -9 of the driver while trials are parked")
