"""A search that runs elsewhere is followed: a job on a cluster, or the driver of another process here."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.runs import finished_run, write_ledger
from tests.programs.dashboard import Dashboard, serving
from tests.tuner.report import searches
from tuner.cli import run
from tuner.cluster import events as module
from tuner.results.lock import RunLock

ROOT = Path(__file__).parents[3]
TAPE = searches.finished().events
CODES = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")


@pytest.fixture
def dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    with serving(tmp_path) as served:
        yield served


def attached(dashboard: Dashboard, *more: str) -> int:
    return run(["submit", "--attach", "first", "--address", dashboard.url, *more])


def test_lines_come_from_the_events_and_not_from_the_log(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job-driver-first.log").write_text("what the job says to people\n")
    dashboard.write(TAPE)
    dashboard.end("FAILED", exit_code=3)
    assert attached(dashboard, "--plain") == 3
    told = capsys.readouterr().err
    assert "trial 1 started" in told and "export first --to DIR --address" in told
    assert "what the job says" not in told and '{"event"' not in told


def test_a_job_without_a_result_tells_its_last_lines_and_its_page(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(40)]
    (tmp_path / "job-driver-first.log").write_text("\n".join([*lines, "\x1b[31mMemoryError\x1b[0m"]) + "\n")
    dashboard.write(TAPE[:10])
    dashboard.end("FAILED", exit_code=1)
    assert attached(dashboard) == 1
    told = capsys.readouterr().err
    assert "line 39\n" in told and "MemoryError" in told and "line 9\n" not in told and "\x1b[31m" not in told
    assert "the job first ended without a result: failed" in told
    assert f"its page  {dashboard.url}/#/jobs/first\n" in told


def test_a_resume_that_was_refused_says_so(
    dashboard: Dashboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has written the events of the earlier sessions, the end among them."""
    (tmp_path / "job-driver-first.log").write_text("error: the rows have changed\n")
    dashboard.write(TAPE)
    dashboard.end("FAILED", exit_code=2)
    assert attached(dashboard) == 2
    assert "error: the rows have changed" in capsys.readouterr().err


def test_a_token_that_is_refused_while_a_search_is_followed(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.write(TAPE[:10])

    def refuse() -> None:
        until = time.monotonic() + 20
        while "32" not in dashboard.asked and time.monotonic() < until:
            time.sleep(0.02)
        dashboard.refuses = 403

    expiring = threading.Thread(target=refuse)
    expiring.start()
    assert attached(dashboard) == 2
    expiring.join()
    told = capsys.readouterr().err
    assert "trial 0" in told, "it was followed before"
    assert "the cluster does not accept the token" in told and "RAY_AUTH_TOKEN" in told and "Traceback" not in told


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The run folder of a search that runs; the test is its driver."""
    path = finished_run(tmp_path)
    write_ledger(path, searches.running().events)
    lock = RunLock(path)
    yield path
    lock.release()


class Window:
    """A terminal window in which the search is followed."""

    def __init__(self, path: Path, columns: int, rows: int = 24) -> None:
        self.columns = columns
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tuner", "status", path.name, "--follow", "--storage-path", str(path.parent)],
            stdin=slave, stdout=slave, stderr=slave, env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def shows(self, wanted: Callable[[str], bool], seconds: float = 30) -> str:
        """Reads until what is written so far, without codes, is as wanted."""
        until = time.monotonic() + seconds
        while not wanted(plain := CODES.sub("", self.text)):
            assert time.monotonic() < until, plain
            os.set_blocking(self._master, False)
            try:
                self.text += os.read(self._master, 65536).decode()
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # its process has ended
                assert wanted(CODES.sub("", self.text)), self.text
        return CODES.sub("", self.text)

    def close(self) -> int:
        """Closes the window: the kernel sends SIGHUP, and nothing can be written any more."""
        os.close(self._master)
        return self.process.wait(30)


def test_a_window_that_is_closed_and_opened_again(running: Path) -> None:
    """The search goes on; a narrow window shows it again, and the end."""
    first = Window(running, 120)
    first.shows(lambda text: "trial" in text and "best" in text)
    assert first.close() == 128 + signal.SIGHUP
    again = Window(running, 40)
    shown = again.shows(lambda text: "best" in text)
    rows = [row for row in re.split(r"[\r\n]+", shown) if row.strip()]
    assert rows and max(map(len, rows)) <= 40, rows
    write_ledger(running, searches.finished().events)
    end = again.shows(lambda text: "export first --to DIR" in text)
    assert "below the recipe's" in " ".join(end.split())
    assert again.process.wait(30) == 0
    again.close()


def test_two_followers_at_once_and_one_leaves(running: Path) -> None:
    windows = [Window(running, 100), Window(running, 80)]
    for window in windows:
        window.shows(lambda text: "best" in text)
    windows[0].process.send_signal(signal.SIGINT)
    told = windows[0].shows(lambda text: "detached: first goes on" in text and "stop first" in text)
    assert windows[0].process.wait(30) == 0 and "Traceback" not in told and "ignored" not in told
    assert windows[1].process.poll() is None
    write_ledger(running, searches.finished().events)
    windows[1].shows(lambda text: "export first --to DIR" in text)
    assert windows[1].process.wait(30) == 0
    for window in windows:
        window.close()
