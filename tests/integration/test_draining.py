"""Nodes that Ray is told to drain, as when a cloud takes a spot instance back: their trials go on elsewhere in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos import driving, invariants
from trainables import states
from tuner.contract import Reason
from tuner.results.ledger import Kind
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.slow  # a cluster of several nodes

NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture
def cluster() -> Iterator[tuple[Any, Any]]:
    """A cluster of a head without CPUs and a node with one."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = made.add_node(num_cpus=2)
    made.wait_for_nodes()
    yield made, node
    made.shutdown()


def drain(made: Any, node: Any, seconds: float) -> None:
    """Tells Ray that a node is taken back in so many seconds, as KubeRay, Anyscale and `ray drain-node` do."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    end = int((time.time() + seconds) * 1000)
    accepted, why = GcsClient(address=made.address).drain_node(node.node_id, reason, "taken back", end)
    assert accepted, why


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def steps_at(driver: Any, number: int) -> int:
    """The last step of a trial that was in the ledger when its node's end was noticed."""
    events = driver.events
    last = next(i for i, e in enumerate(events) if e.event is Kind.RETRY and e.number == number)
    return max(e.step or 0 for e in events[:last] if e.event is Kind.EVALUATION and e.number == number)


@pytest.mark.parametrize("seconds", [60, 4])
def test_trials_leave_a_node_before_it_goes(cluster: Any, tmp_path: Path, seconds: int) -> None:
    """With time for one more report they take it along; with 4 s they leave at once. Nobody's attempt is lost, and
    nothing of what they were measured at is trained again."""
    made, node = cluster
    driver = driving.toy(
        tmp_path, "--scheduler", "none", "--address", made.address, train={"pace": 1.5}, trials=4,
        environment=NO_TOKEN,
    )  # fmt: skip
    driver.wait(driving.counting(Kind.EVALUATION, 4))
    other = made.add_node(num_cpus=2)
    drain(made, node, seconds)
    events = driver.wait(driving.counting(Kind.SETUP, 4))
    running = SearchRecord.fold(events).running
    assert {psutil.Process(trial.setup["pid"]).ppid() for trial in running} == {raylet(other)}
    made.remove_node(node, allow_graceful=False)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=4, exit_code=code)
    assert [trial.losses for trial in record.ended] == [{"drained": 1}, {"drained": 1}, {}, {}]
    for trial in record.ended:
        assert trial.reason is Reason.BUDGET
    for number in (0, 1):
        assert record.trials[number].setup["resumed_step"] == steps_at(driver, number) > 0
    assert "is about to go" in errors


def test_an_engine_leaves_with_its_trials(cluster: Any, tmp_path: Path) -> None:
    made, node = cluster
    driver = driving.start(
        tmp_path, "--name", "run", "--num-trials", "2", "--scheduler", "none", "--sampler", "random",
        "--trials-per-gpu", "2", "--max-concurrent-trials", "2", "--set", "train.max_steps=900",
        "--set", "data.max_validation_rows=32", "--address", made.address,
        environment={**NO_TOKEN, states.EVERY: "1000"},
    )  # fmt: skip
    driver.wait(driving.counting(Kind.EVALUATION, 3))
    made.add_node(num_cpus=2)
    drain(made, node, 120)
    driver.wait(driving.counting(Kind.RETRY, 2))
    driver.wait(driving.counting(Kind.SETUP, 4))
    made.remove_node(node, allow_graceful=False)
    code, _, errors = driver.end()
    assert code == 0, errors
    record = invariants.check(driver.folder, num_trials=2, exit_code=code)
    for trial in record.ended:
        assert trial.reason is Reason.BUDGET and trial.losses == {"drained": 1}
        assert trial.setup["resumed_step"] == steps_at(driver, trial.number) > 0, "a state was kept for the way"
