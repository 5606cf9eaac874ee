"""A Ray cluster of one node, in processes of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.programs.answering import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Head:
    """A running head node. address: host:port. environment: makes `auto` mean this cluster, whatever else is
    running. dashboard: the URL of its dashboard, if it has one."""

    address: str
    environment: dict[str, str]
    dashboard: str = ""


@contextmanager
def running(dashboard: bool = False, page: int | None = None, **environment: str) -> Iterator[Head]:
    """Runs a head node with 3 CPUs, and ends only its own processes. page: the dashboard's port; None for a free one.
    environment: of the processes."""
    port, page = free_port(), page or free_port()
    temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: Ray keeps its sockets there
    here = Path(sys.executable).parent  # jobs of the cluster run `python`
    process = subprocess.Popen(
        [
            str(here / "ray"), "start", "--head", "--block", "--port", str(port),
            "--num-cpus", "3", "--include-dashboard", str(dashboard).lower(), "--temp-dir", f"{temporary}/ray",
            "--disable-usage-stats", "--dashboard-port", str(page), "--dashboard-agent-listen-port", "0",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{here}:{os.environ['PATH']}", **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not Path(temporary, "ray", "ray_current_cluster").exists() and time.monotonic() < deadline:
        time.sleep(0.3)  # written when all of its processes have started
    try:
        yield Head(f"127.0.0.1:{port}", {"RAY_TMPDIR": temporary}, f"http://127.0.0.1:{page}")
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for member in family:  # the dashboard's fork server outlives it
            with suppress(psutil.NoSuchProcess):
                member.kill()
        shutil.rmtree(temporary, ignore_errors=True)
