"""Commands in processes with unusual streams, home, user, encoding, terminal or folders."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.chaos.runs import finished_run

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Place:
    """before: shell commands before it. after: redirections. python: options of the interpreter. unset, set: of the
    environment. code: the exit code of a command that prints."""

    after: str = ""
    before: str = ""
    python: str = ""
    unset: tuple[str, ...] = ()
    set: dict[str, str] = field(default_factory=dict)
    code: int = 0
    says: str = ""

    def run(self, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.set}
        for name in self.unset:
            environment.pop(name, None)
        line = f"{self.before} {sys.executable} {self.python} -m tuner {command} {self.after}"
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=cwd, env=environment, capture_output=True, text=True, errors="replace", timeout=120,
        )  # fmt: skip


PLACES = {
    "standard output closed": Place(">&-"),
    "standard error closed": Place("2>&-"),
    "standard input closed": Place("<&-"),
    "all three closed": Place("<&- >&- 2>&-"),
    "a full disk behind standard output": Place(">/dev/full", code=2, says="standard output cannot be written"),
    "a full disk behind standard error": Place("2>/dev/full"),
    "an output that may only be read": Place("1</dev/null", code=2, says="standard output cannot be written"),
    "a reader that is gone": Place("| true", before="sleep 0.2;", code=141),
    "no HOME": Place(unset=("HOME",)),
    "a HOME that is not there": Place(set={"HOME": "/nonexistent/home"}),
    "a HOME that cannot be written": Place(set={"HOME": "/proc/1"}),
    "no name of a user": Place(unset=("USER", "LOGNAME", "LNAME", "USERNAME")),
    "a temporary folder that is not there": Place(set={"TMPDIR": "/nonexistent/tmp"}),
    "warnings as errors": Place(set={"PYTHONWARNINGS": "error,ignore::UserWarning"}),
    "warnings as errors, by option": Place(python="-W error"),
    "no assertions": Place(python="-O"),
    "an ASCII output": Place(set={"PYTHONIOENCODING": "ascii"}),
    "an output of Latin 1": Place(set={"PYTHONIOENCODING": "latin-1"}),
    "the C locale, taken at its word": Place(set={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "20 columns": Place(set={"COLUMNS": "20"}),
    "1 column": Place(set={"COLUMNS": "1"}),
    "columns that are no number": Place(set={"COLUMNS": "-3x"}),
    "no TERM": Place(unset=("TERM",)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_commands_that_print(name: str, tmp_path: Path) -> None:
    """`status` of a finished search; what is cheaper runs the same way, and `plan` below."""
    place, run = PLACES[name], finished_run(tmp_path)
    done = place.run(f"status {run}", tmp_path)
    assert done.returncode in (place.code, 0 if place.code == 141 else place.code), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert place.says in done.stderr if place.says else not done.stderr, done.stderr
    if not place.after:
        assert "4.312" in done.stdout


@pytest.mark.chaos
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("command", ["--help", "plan", "plan --json", "spaces lora", "show {run} 1 --json"])
def test_every_command_that_prints(name: str, command: str, tmp_path: Path) -> None:
    place = PLACES[name]
    done = place.run(command.format(run=finished_run(tmp_path)), tmp_path)
    assert done.returncode in (place.code, 0 if place.code == 141 else place.code), done.stderr
    assert place.says in done.stderr if place.says else not done.stderr, done.stderr
    if "--json" in command and not place.after:
        assert isinstance(json.loads(done.stdout), dict)


def test_a_current_folder_that_was_removed(tmp_path: Path) -> None:
    gone = Place(before="mkdir gone; cd gone; rmdir ../gone;")
    done = gone.run("plan", tmp_path)
    assert done.returncode == 2 and "the current folder cannot be found" in done.stderr, done.stderr
    assert gone.run("--help", tmp_path).returncode == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    done = Place(before="cd /proc/1;").run("search --name x", tmp_path)
    assert done.returncode == 2 and "cannot write here" in done.stderr, done.stderr


def test_a_terminal_without_a_name_gets_no_escape_codes(tmp_path: Path) -> None:
    """TERM unset says nothing of colours, and a serial console knows none."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TERM", None)
    subprocess.run(
        [sys.executable, "-m", "tuner", "status", str(finished_run(tmp_path))],
        stdout=slave, stderr=slave, env=environment, cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    shown = os.read(master, 65536)
    os.close(slave)
    os.close(master)
    assert b"4.312" in shown and b"\x1b" not in shown


def test_another_socket_that_breaks_is_not_taken_for_the_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was 141 without a word, as though the reader of the output had gone."""
    from tuner.cli.errors import BrokenPipeBeneathError, exit_code_of

    monkeypatch.delitem(sys.modules, "tuner.importing", raising=False)  # as where no code of a user's was run
    try:
        try:
            raise BrokenPipeError(32, "Broken pipe")
        except BrokenPipeError as beneath:
            raise BrokenPipeBeneathError from beneath
    except BrokenPipeBeneathError as error:
        assert exit_code_of(error) == 70
    assert "BrokenPipeError: [Errno 32] Broken pipe" in capsys.readouterr().err
