"""A cluster that grows: Ray's real autoscaler with its provider of pretended machines, whose raylets are real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import TOY
from tests.integration.test_cluster import ROOT, free_port

CONFIG = {
    "cluster_name": "grows", "max_workers": 2, "upscaling_speed": 10.0, "idle_timeout_minutes": 5,
    "provider": {"type": "fake_multinode", "launch_multiple": True, "head_node_id": "f" * 55 + "0"},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default", "auth": {}, "docker": {}, "initialization_commands": [],
    "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [],
    "worker_start_ray_commands": [], "file_mounts": {}, "cluster_synced_files": [],
    "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
}  # fmt: skip


@pytest.fixture
def growing() -> Iterator[str]:
    """A head without a CPU for trials, and an autoscaler that may add two nodes of one CPU."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="ta", dir="/tmp")
    config = Path(folder, "autoscaling.yaml")
    config.write_text(json.dumps(CONFIG))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port),
            "--num-cpus", "0", "--autoscaling-config", str(config), "--temp-dir", f"{folder}/ray",
            "--include-dashboard", "false", "--disable-usage-stats", "--dashboard-agent-listen-port", str(free_port()),
        ],
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": "f" * 55 + "0",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "f" * 55 + "0",
        },
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        subprocess.run(
            [sys.executable, "-c", _WAIT, f"127.0.0.1:{port}"], env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            check=True, timeout=120,
        )  # fmt: skip
        yield f"127.0.0.1:{port}"
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs([psutil.Process(member.pid) for member in family if psutil.pid_exists(member.pid)], timeout=5)
        for member in psutil.process_iter(["pid"]):
            try:
                if os.getsid(member.pid) == process.pid:
                    member.kill()
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        shutil.rmtree(folder, ignore_errors=True)


# Until the autoscaler has said what it may add.
_WAIT = """
import sys, time
from ray import _raylet
where = _raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
for _ in range(200):
    try:
        client = _raylet.GcsClient(address=sys.argv[1])
        if client.internal_kv_get(_raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode(), where): break
    except Exception: pass
    time.sleep(0.5)
else: sys.exit("the autoscaler says nothing")
"""


@pytest.mark.slow
def test_pending_trials_make_the_cluster_grow(growing: str, tmp_path: Path) -> None:
    """There is no CPU at all when the search begins; it does not refuse, it waits for what may come."""
    space = "search.space={parameters: {learning_rate: {type: float, low: 1.0e-5, high: 1.0, log: true}}}"
    done = subprocess.run(
        [
            sys.executable, "-m", "tuner", "search", "--program", TOY, "--set", space, "--num-trials", "4",
            "--name", "grown", "--storage-path", str(tmp_path), "--address", growing, "--set", "scheduler.kind=none",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}, cwd=ROOT, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 trials on 2 workers" in done.stderr and "4 of 4 trials" in done.stderr
