"""A node that is lost, and an engine that dies with the trials on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.chaos import driving, invariants
from tests.chaos.driving import Shared
from tests.chaos.faults import Count
from tuner.contract import Reason
from tuner.results.ledger import Event, Kind
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.chaos


@pytest.fixture
def shared() -> Iterator[Shared]:
    """A Ray that asks for no token, while the driver has one."""
    with driving.shared_ray(cpus=1, token=False) as ray:
        yield ray


def test_the_raylet_of_a_second_node(shared: Shared, tmp_path: Path, fault: Count) -> None:
    second = shared.cluster.add_node(num_cpus=1)
    shared.cluster.wait_for_nodes()
    raylet = driving.raylet_of(second)
    # Slow enough for a trial to be cut off: until Ray declares its node dead, 14 s pass
    driver = driving.toy(tmp_path, "--scheduler", "none", train={"pace": 3.0}, trials=2, on=shared)

    def there(events: list[Event]) -> list[int]:
        running = [t for t in SearchRecord.fold(events).trials.values() if t.is_running and len(t.points) > 1]
        return [t.number for t in running if psutil.Process(t.setup["pid"]).ppid() == raylet.pid]

    on_it = there(driver.wait(lambda events: bool(there(events))))
    before, workers = driver.events, raylet.children(recursive=True)
    raylet.kill()
    raylet.wait(10)  # it is this process's child: as a zombie it would be alive to its workers, which would stay
    code, _, errors = driver.end()
    assert code == 0, errors
    family = [*workers, *driver.family]
    record = invariants.check(driver.folder, num_trials=2, exit_code=code, family=family)
    invariants.check_kept(before, driver.events)
    lost = record.trials[on_it[0]]
    assert lost.losses == {"infrastructure": 1} and lost.reason is Reason.BUDGET
    assert lost.setup["resumed_step"] > 0
    fault("kill -9 of the raylet of a second node")


def test_an_engine(tmp_path: Path, fault: Count) -> None:
    driver = driving.start(
        tmp_path, "--name", "run", "--num-trials", "4", "--scheduler", "none", "--sampler", "random",
        "--trials-per-gpu", "2", "--max-concurrent-trials", "2", "--set", "train.max_steps=60",
        "--set", "data.max_validation_rows=32",
    )  # fmt: skip
    driver.wait(driving.counting(Kind.EVALUATION, 4))
    engines = [p for p in driver.look_around() if driving.has_torch(p)]
    assert engines, [p.cmdline() for p in driver.family]
    family = list(driver.family)
    engines[0].kill()
    time.sleep(1)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=4, exit_code=code, family=[*family, *driver.family])
    assert {t.reason for t in record.ended} == {Reason.BUDGET}
    assert sum(t.losses.get("infrastructure", 0) for t in record.trials.values()) >= 1
    fault("kill -9 of an engine")
