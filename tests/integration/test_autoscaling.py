"""A cluster that grows on demand: Ray's own autoscaler, with a provider whose nodes are processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.chaos import driving
from tests.programs.answering import free_port
from tuner.results.records import SearchRecord

pytestmark = pytest.mark.slow  # nodes that come one after another

ROOT = Path(__file__).resolve().parents[2]
TYPE = "accelerator_type:H100"
WANTED = (
    "cluster_synced_files", "file_mounts_sync_continuously", "rsync_exclude", "rsync_filter", "initialization_commands",
    "setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands",
    "worker_start_ray_commands",
)  # fmt: skip
"""Keys that the autoscaler requires, for commands that it would run on real machines."""


@pytest.fixture
def head() -> Iterator[str]:
    """The address of a head without CPUs, with an autoscaler that may add three nodes of one CPU, which claim to have
    an H100."""
    port = free_port()
    temporary = Path(tempfile.mkdtemp(prefix="as", dir="/tmp"))  # short: Ray keeps its sockets there
    node = {"resources": {"CPU": 1, TYPE: 1, "object_store_memory": 80_000_000}, "node_config": {}, "min_workers": 0}
    config = {
        "cluster_name": "tests", "max_workers": 3, "upscaling_speed": 1.0, "idle_timeout_minutes": 5,
        "provider": {
            "type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}",
            "use_node_id_as_ip": True,  # they all have one address
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "ray.worker": {**node, "max_workers": 3},
        },
        "head_node_type": "ray.head.default",
        **{key: {} for key in ("docker", "auth", "file_mounts")}, **{key: [] for key in WANTED},
    }  # fmt: skip
    file = temporary / "autoscaler.json"
    file.write_text(json.dumps(config))
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", str(port),
            "--node-ip-address", "127.0.0.1", "--num-cpus", "0", "--include-dashboard", "false",
            "--dashboard-agent-listen-port", str(free_port()), "--autoscaling-config", str(file),
            "--object-store-memory", "80000000", "--temp-dir", str(temporary), "--disable-usage-stats",
        ],
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "disabled",
        },
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    family: dict[int, psutil.Process] = {}
    try:
        wait_for("the head did not come up", lambda: nodes(f"127.0.0.1:{port}") == 1)
        yield f"127.0.0.1:{port}"
    finally:
        family |= {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs([psutil.Process(process.pid)], 20)
        for member in [p for p in family.values() if p.is_running()]:
            member.kill()
        process.kill()
        process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def nodes(address: str) -> int:
    """The number of nodes of a cluster."""
    code = (
        "import sys; from ray._raylet import GcsClient; "
        "print(sum(n.state == 0 for n in GcsClient(address=sys.argv[1]).get_all_node_info().values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip
    return int(done.stdout or 0)


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def search(head: str, folder: Path, **resources: Any) -> driving.Driver:
    return driving.toy(
        folder, "--scheduler", "none", "--gpus-per-trial", "0", "--address", head, train={"pace": 1.5}, trials=4,
        resources=resources, environment={"RAY_AUTH_MODE": "disabled"},
    )  # fmt: skip


def test_a_search_makes_a_cluster_grow(head: str, tmp_path: Path) -> None:
    """From nothing to three nodes, for three of four trials at a time, and for a GPU type that nobody has yet."""
    driver = search(head, tmp_path, scale_to=3, accelerator_type="H100")

    def at_once(events: Any) -> bool:
        running = [trial for trial in SearchRecord.fold(events).running if trial.points]
        return len({psutil.Process(trial.setup["pid"]).ppid() for trial in running}) == 3

    driver.wait(at_once, timeout=240)
    code, _, errors = driver.end()
    assert code == 0, errors
    assert "4 of 4 trials" in errors and nodes(head) == 4


def test_without_being_told_a_search_keeps_to_what_is_there(head: str, tmp_path: Path) -> None:
    """What does not fit, and a type that nobody has, is said at once."""
    code, _, errors = search(head, tmp_path).end()
    assert code == 2 and "Ray has 0 and 0" in errors and "resources.scale_to" in errors
    code, _, errors = search(head, tmp_path, accelerator_type="H100").end()
    assert code == 2 and "no node has or may get a H100" in errors and "resources.scale_to" in errors
