"""A search that joins a running cluster, and one that finds none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import SPACE, TOY
from tests.programs import heads
from tests.programs.answering import closed_port

ROOT = Path(__file__).resolve().parents[2]


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
    with heads.running() as started:
        yield started.address


@pytest.mark.slow
def test_a_search_joins_a_running_cluster_and_leaves_it_running(head: str, tmp_path: Path) -> None:
    done = run_search(tmp_path, head)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 trials" in done.stderr and "3 workers" in done.stderr
    host, port = head.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def test_an_address_that_does_not_answer_is_said_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    done = run_search(tmp_path, closed_port())
    assert done.returncode == 2
    assert "no Ray cluster answers" in done.stderr and "Traceback" not in done.stderr
    assert time.monotonic() - started < 30
    assert not (tmp_path / "joined").exists()
