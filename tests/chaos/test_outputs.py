"""The output of a search has no reader, no terminal or no room: the search goes on to its end as fast as before, with
its own exit code, and its log says what was dropped."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import driving, invariants
from tests.chaos.driving import ROOT, Driver, Shared
from tests.chaos.faults import Count
from tests.integration.conftest import SPACE, TOY
from tuner.results.ledger import Event, Kind

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with driving.shared_ray() as ray:
        yield ray


def words(folder: Path, *arguments: str, trials: int = 4, pace: float = 0.0) -> list[str]:
    """The command of a toy search called "run"."""
    settings = {"search.space": json.dumps(SPACE), "train.pace": pace, "run.min_free_mb": 0}
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    flags += ["--program", TOY, "--name", "run", "--num-trials", str(trials), "--storage-path", str(folder)]
    return [sys.executable, "-m", "tuner", "search", *flags, *arguments]


def begin(folder: Path, shared: Shared, *arguments: str, trials: int = 4, pace: float = 0.0, **more: Any) -> Driver:
    """Starts the search. more: arguments of Popen, which redirect its streams."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": shared.address, "TERM": "xterm"}
    command = words(folder, *arguments, trials=trials, pace=pace)
    process = subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **more)
    return Driver(process, folder / "run", shared.raylet)


def ends_whole(driver: Driver, trials: int, notes: int) -> str:
    """Waits until it ends; checks every invariant, and that its log says `notes` times that a stream was dropped. Gives
    the log."""
    driver.look_around()
    code = driver.process.wait(timeout=180)
    invariants.check(driver.folder, num_trials=trials, exit_code=code, family=driver.family)
    assert code == 0
    log = (driver.folder / "logs" / "driver.log").read_text()
    assert log.count("cannot be written any more") == notes, log
    return log


GONE, STARTS_FULL, CLOSED = (
    "a reader of the output that goes away",
    "a full disk behind the output",
    "a closed standard stream",
)
OUTPUTS = {
    "2>&1 | head -1": (GONE, 1),
    "--events | head -5 >/dev/null": (GONE, 1),
    "--events --json 2>&1 | head -3": (GONE, 2),
    "2> >(head -2 >/dev/null)": (GONE, 1),
    "2>/dev/full": (STARTS_FULL, 1),
    "--events >/dev/full": (STARTS_FULL, 1),
    "--json 2>/dev/full >/dev/full": (STARTS_FULL, 1),
    ">&-": (CLOSED, 0),
    "--events >&- 2>&-": (CLOSED, 0),
    "<&-": (CLOSED, 0),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_goes_nowhere(output: str, shared: Shared, tmp_path: Path, fault: Count) -> None:
    name, notes = OUTPUTS[output]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": shared.address}
    options, _, redirections = output.partition(" ") if output.startswith("--") else ("", "", output)
    while redirections.startswith("--"):
        more, _, redirections = redirections.partition(" ")
        options += f" {more}"
    line = f'"$@" {options} {redirections}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *words(tmp_path, pace=0.05)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    invariants.check(tmp_path / "run", num_trials=4, exit_code=0)
    log = (tmp_path / "run" / "logs" / "driver.log").read_text()
    assert log.count("cannot be written any more") == notes, log
    fault(name)


def test_readers_that_do_not_read(shared: Shared, tmp_path: Path, fault: Count) -> None:
    """Neither of the events, which fill the pipe three times, nor of the lines; a stopped `less`, say."""
    driver = begin(tmp_path, shared, "--events", trials=40, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    began = time.monotonic()
    driver.wait(lambda events: bool(events) and events[-1].event is Kind.FINISHED)
    took = driver.events[-1].time - driver.events[0].time
    assert driver.process.wait(timeout=60) == 0
    assert (driver.folder / "trials.jsonl").stat().st_size > 100_000, "more than a pipe takes"
    assert time.monotonic() - began < took + 60
    invariants.check(driver.folder, num_trials=40, exit_code=0)
    driver.process.communicate()
    fault("a reader of the output that does not read")


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_that_is_closed(plain: bool, shared: Shared, tmp_path: Path, fault: Count) -> None:
    master, slave = pty.openpty()
    options = ["--plain"] if plain else []
    driver = begin(tmp_path, shared, *options, pace=0.1, stdout=slave, stderr=slave)
    os.close(slave)
    reader = _reading(master)
    driver.wait(driving.counting(Kind.EVALUATION, 3))
    reader.stop()
    os.close(master)
    ends_whole(driver, trials=4, notes=1)
    fault("a terminal that is closed")


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_that_is_stopped(plain: bool, shared: Shared, tmp_path: Path, fault: Count) -> None:
    """Ctrl-S, and nobody comes back: also the live view's last frame and the summary find nobody."""
    master, slave = pty.openpty()
    options = ["--plain"] if plain else []
    driver = begin(tmp_path, shared, *options, pace=0.1, stdout=slave, stderr=slave)
    reader = _reading(master)
    driver.wait(driving.counting(Kind.EVALUATION, 3))
    termios.tcflow(slave, termios.TCOOFF)
    ends_whole(driver, trials=4, notes=0)
    reader.stop()
    os.close(slave)
    os.close(master)
    fault("a terminal that is stopped")


class _reading:
    """Reads what is shown on a terminal, as a person does."""

    def __init__(self, master: int) -> None:
        self._master, self._over = master, threading.Event()
        os.set_blocking(master, False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                os.read(self._master, 65536)
            except BlockingIOError:
                continue
            except OSError:
                return

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def test_events_go_to_the_output_while_the_terminal_has_the_live_view(shared: Shared, tmp_path: Path) -> None:
    """They went to the terminal: rich takes standard output over, too."""
    master, slave = pty.openpty()
    driver = begin(tmp_path, shared, "--events", stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    reader = _reading(master)
    output, _ = driver.process.communicate(timeout=180)
    reader.stop()
    os.close(master)
    assert driver.process.returncode == 0
    assert [Event.from_json(line) for line in output.splitlines()] == driver.events


def test_a_tracking_server_that_accepts_and_never_answers(shared: Shared, tmp_path: Path, fault: Count) -> None:
    """The library waits for minutes, in its own thread; the search and its end do not."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        try:
            driver = begin(
                tmp_path, shared, "--set", "run.trackers=[mlflow, tensorboard]", stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )  # fmt: skip
            driver.wait(lambda events: bool(events) and events[-1].event is Kind.FINISHED)
            began = time.monotonic()
            code, _, errors = driver.end(timeout=120)
        finally:
            del os.environ["MLFLOW_TRACKING_URI"]
    assert code == 0 and time.monotonic() - began < 60, errors
    assert errors.count("the tracker mlflow failed, and the search goes on without it: it was not done 30 s") == 1
    assert len(list((driver.folder / "tensorboard").iterdir())) == 4
    invariants.check(driver.folder, num_trials=4, exit_code=0, family=driver.family)
    fault("a tracking server that never answers")
