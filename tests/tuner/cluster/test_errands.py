"""What an errand does on the cluster, without one: its process writes its output where Ray puts a job's. The whole way,
from another machine and back, is in tests/integration/test_submit.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.runs import finished_run
from tuner.cluster.jobs import Cluster
from tuner.contract import InputError
from tuner.results.adapters import checked_manifest
from tuner.results.command_line import READ_AT

ROOT = Path(__file__).resolve().parents[3]


def errand(logs: Path, **order: Any) -> subprocess.Popen[bytes]:
    logs.mkdir(exist_ok=True)
    with (logs / "job-driver-tuner-fetch-1.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner.cluster.errand", json.dumps(order)],
            stdout=log, cwd=ROOT, env={**os.environ, READ_AT: "http://head:8265"},
        )  # fmt: skip


def answer_in(log: Path, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not (text := log.read_text()).endswith("\n"):
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.05)
    answer: dict[str, Any] = json.loads(text)
    return answer


def test_the_best_adapter_is_lent_until_the_errand_is_stopped(tmp_path: Path) -> None:
    run, logs = finished_run(tmp_path), tmp_path / "logs"
    process = errand(logs, duty="best", name=run.name, storage_path=str(run.parent))
    try:
        answer = answer_in(logs / "job-driver-tuner-fetch-1.log")
        lent = logs / answer["place"]
        sizes = {name: (lent / name).stat().st_size for name in answer["files"]}
        assert sizes == answer["files"]
        assert set(sizes) == {"best/manifest.json", *(f"best/{n}" for n in checked_manifest(run / "best")["files"])}
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not os.path.lexists(lent) and (run / "best" / "manifest.json").is_file(), (
        "the link has gone, and nothing else"
    )


@pytest.mark.parametrize(
    ("order", "told", "remedy"),
    [
        ({"duty": "best", "name": "absent"}, "there is no run 'absent'", "--storage-path"),
        (
            {"duty": "ask", "action": "pause", "values": {}},
            "it is over",
            "submit --resume {} --address http://head:8265",
        ),
    ],
)
def test_what_an_errand_is_refused_is_said_for_the_reader(
    tmp_path: Path, order: dict[str, Any], told: str, remedy: str
) -> None:
    run, logs = finished_run(tmp_path), tmp_path / "logs"
    process = errand(logs, **{"name": run.name, "storage_path": str(run.parent), **order})
    assert process.wait(60) == 0
    refused = answer_in(logs / "job-driver-tuner-fetch-1.log")["error"]
    assert told in refused["what"] and remedy.format(run.name) in refused["remedy"]


class Half(BaseHTTPRequestHandler):
    """A dashboard that gives half of each file."""

    def do_GET(self) -> None:
        version = self.path.endswith("/api/version")
        from importlib import metadata

        body = json.dumps({"ray_version": metadata.version("ray"), "version": "4"}).encode() if version else b"1234"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


@pytest.fixture
def half() -> Iterator[Cluster]:
    server = HTTPServer(("127.0.0.1", 0), Half)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Cluster(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()


def test_a_file_that_does_not_come_complete_is_said(half: Cluster, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best/weights did not come complete: 4 of 8 bytes"):
        half.download("node", "tuner-1/best/weights", tmp_path / "weights", 8)
    half.download("node", "tuner-1/best/weights", tmp_path / "weights", 3)
    assert (tmp_path / "weights").read_bytes() == b"123", "no more than was told"
