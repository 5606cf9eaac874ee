"""A Ray that does not start: one sentence, exit code 2, nothing left, and afterwards the same command works."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import yaml

from tests.chaos import driving, invariants
from tests.chaos.faults import Count
from tests.integration.conftest import SPACE, TOY
from tuner.ray_cluster.session import LEAST_FILES
from tuner.results.ledger import Kind

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path that any user can write to."""
    made = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def search(place: Path, environment: Mapping[str, str], *before: str) -> tuple[int, str]:
    """Runs a search of one trial; gives exit code and standard error. before: the command that starts it."""
    file = place / "search.yaml"
    run = {"program": TOY, "name": "run", "trackers": []}
    file.write_text(yaml.safe_dump({"search": {"num_trials": 1, "space": SPACE}, "run": run}))
    inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_AUTH_MODE", "RAY_ADDRESS")}
    driver = subprocess.Popen(
        [*before, sys.executable, "-m", "tuner", "search", str(file), "--storage-path", str(place / "runs")],
        env={**inherited, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(place), **environment}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, errors = driver.communicate(timeout=240)
    return driver.returncode, errors


def refused(place: Path, code: int, errors: str) -> None:
    assert code == 2 and "Ray does not start on this machine" in errors, errors
    assert "Traceback" not in errors and "fault of the tuner" not in errors, errors
    assert not (place / "runs" / "run").exists() and not list(place.glob("tuner-ray-*"))


def test_a_port_that_is_taken(place: Path, fault: Count) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        refused(place, *search(place, {"RAY_GCS_SERVER_PORT": str(taken.getsockname()[1])}))
    code, errors = search(place, {})
    assert code == 0, errors
    fault("a Ray that does not start")


@pytest.mark.parametrize("limit", [24, 48])
def test_a_limit_of_open_files(place: Path, fault: Count, limit: int) -> None:
    code, errors = search(place, {}, "prlimit", f"--nofile={limit}")
    refused(place, code, errors)
    assert limit < LEAST_FILES and f"may open {limit} files" in errors
    code, errors = search(place, {}, "prlimit", f"--nofile={LEAST_FILES}", "--")
    assert code == 0, errors
    shutil.rmtree(place / "runs")
    code, errors = search(place, {})
    assert code == 0, errors
    fault("a Ray that does not start")


SOMEBODY = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")


def somebody_can() -> bool:
    """Whether this process can become another user, who can run the tests' Python."""
    tried = [*SOMEBODY, "env", sys.executable, "-c", "import ray"]
    return os.geteuid() == 0 and subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not somebody_can(), reason="root's processes are not limited, and no other user has this Python")
@pytest.mark.parametrize("limit", [4, 60])
def test_a_limit_of_processes(place: Path, fault: Count, limit: int) -> None:
    """With 4 not even the first process of Ray starts; with 60 its libraries abort the driver, which can say nothing
    then: the folder stays, and the same command takes it away."""
    home = place / "home"
    home.mkdir()
    home.chmod(0o777)
    environment = {"HOME": str(home), "USER": "somebody", "TMPDIR": str(place)}
    code, errors = search(place, environment, *SOMEBODY, "prlimit", f"--nproc={limit}")
    if code == 2:
        refused(place, code, errors)
    else:
        assert code in (-signal.SIGABRT, -signal.SIGSEGV), errors
    assert not [p for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real == 54321]
    code, errors = search(place, environment, *SOMEBODY)
    assert code == 0, errors
    fault("a Ray that does not start")


def test_a_driver_killed_before_its_first_trial(place: Path, fault: Count) -> None:
    """kill -9 while Ray starts: the same command is not refused."""
    driver = driving.toy(place, environment={"RAY_TMPDIR": str(place)})
    driver.wait(lambda events: driver.folder.exists())
    driver.wait(lambda events: any("gcs_server" in invariants.name_of(p) for p in driver.look_around()))
    driver.kill()
    assert driver.folder.exists() and not driving.counting(Kind.STARTED, 1)(driver.events)
    again = driving.toy(place, trials=1, environment={"RAY_TMPDIR": str(place)})
    code, _, errors = again.end()
    assert code == 0, errors
    invariants.check(again.folder, num_trials=1, exit_code=code, family=[*driver.family, *again.family])
    fault("a Ray that does not start")
