"""A search that joins a running cluster, and one that finds none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.integration.conftest import SPACE, TOY

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_search(folder: Path, address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump({"search": {"num_trials": 3, "space": SPACE}, "run": {"program": TOY}}))
    return subprocess.run(
        [
            sys.executable, "-m", "tuner", "search", str(file), "--address", address,
            "--storage-path", str(folder), "--name", "joined", *arguments,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture
def head() -> Iterator[str]:
    """A head node in processes of its own, with 3 CPUs; ended by process, not by name."""
    port = free_port()
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: Ray keeps its sockets there
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", str(port),
            "--num-cpus", "3", "--include-dashboard", "false", "--temp-dir", temporary, "--disable-usage-stats",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.3)
    time.sleep(3)  # the port answers before the raylet has joined
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    yield f"127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        for member in family:
            member.kill()
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.slow
def test_a_search_joins_a_running_cluster_and_leaves_it_running(head: str, tmp_path: Path) -> None:
    done = run_search(tmp_path, head)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 trials" in done.stderr and "3 workers" in done.stderr
    host, port = head.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def test_an_address_that_does_not_answer_is_said_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run_search(tmp_path, f"127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr and "Traceback" not in done.stderr
    assert time.monotonic() - started < 30
    assert not (tmp_path / "joined").exists()
