"""`tuner dashboard` of a search that runs: where it sends a browser, and what it says where it cannot sign it in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.runs import finished_run, write_ledger
from tests.tuner.report import searches
from tuner.results.ledger import Kind
from tuner.results.lock import RunLock

ROOT = Path(__file__).parents[3]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Makes the run folder of a search that runs, with this page in the Ray dashboard."""
    path = finished_run(tmp_path)

    def make(page: str) -> None:
        events = [
            replace(event, details={**event.details, "dashboard": page}) if event.event is Kind.SEARCH else event
            for event in searches.running().events
        ]
        write_ledger(path, events)

    lock = RunLock(path)
    yield make
    lock.release()


def said(storage: Path, *more: str) -> str:
    """The first line that it prints; it is interrupted then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "first", "--storage-path", str(storage), *more],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": "s3cret"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        return process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_page_on_this_machine_is_opened_with_the_token(tmp_path: Path, running: Callable[[str], None]) -> None:
    page = "http://127.0.0.1:8265/#/jobs/01000000"
    running(page)
    line = said(tmp_path)
    assert line.startswith("ray") and f"(signs in, and opens {page})" in line and "s3cret" not in line
    address = json.loads(said(tmp_path, "--json"))["ray"]
    assert address.startswith("http://127.0.0.1:") and address != page


def test_for_a_page_elsewhere_the_token_is_printed(tmp_path: Path, running: Callable[[str], None]) -> None:
    page = "http://10.1.2.3:8265/#/jobs/01000000"
    running(page)
    line = said(tmp_path)
    assert page in line and "(its token: s3cret)" in line
    assert json.loads(said(tmp_path, "--json"))["ray"] == page
