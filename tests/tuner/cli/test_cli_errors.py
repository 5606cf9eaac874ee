"""What a user reads when a command cannot be carried out, and the exit code of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cli import run
from tuner.cli.errors import exit_code_of
from tuner.cli.options import SETTINGS
from tuner.config import FLAGS
from tuner.contract import InputError


def test_flags_are_the_ones_that_error_messages_name() -> None:
    assert {flag: dotted for flag, dotted, _ in SETTINGS} == dict(FLAGS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serch"], "no command 'serch'; did you mean search?"),
        (["frobnicate"], "the commands are search, plan, status"),
        (["search", "--modle", "x"], "'--model'"),
        (["search", "--num-trials", "many"], "'many' is not a valid integer"),
        (["search", "nowhere.yaml"], "no file or folder"),
        (["search", "--set", "nonsense"], "not an assignment"),
        (["search", "--model", "org/name", "--data", "org/data", "--num-trials", "0"], "search.num_trials"),
        (["search", "--model", "org/name", "--data", "org/data", "--name", "../evil"], "stays inside the storage path"),
        (["search", "--resume", "first", "--model", "x", "--set", "a.b=1"], "--set, --model would change them"),
        (["search", "--resume", "nothing-like-it"], "there is no run 'nothing-like-it'"),
        (["status", "nothing-like-it"], "there is no run 'nothing-like-it'"),
        (["show", "nothing-like-it", "0"], "there is no run 'nothing-like-it'"),
        (["export", "nothing-like-it", "--to", "x"], "there is no run 'nothing-like-it'"),
        (["spaces", "lorra"], "did you mean `lora`?"),
        (["plan", "--program", "no.such:Thing"], "no program 'no.such:Thing'"),
        (["train"], "Missing argument 'FILE'"),
    ],
)
def test_input_errors_exit_2_without_a_traceback(
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert told in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_an_input_error_says_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError("got 3.5", where="a.yaml:7", expected="a whole number", remedy="write 3 or 4")
    assert exit_code_of(error) == 2
    assert capsys.readouterr().err == "error: a.yaml:7: got 3.5\n  expected: a whole number\n  try: write 3 or 4\n"


def test_a_fault_of_the_tuner_is_told_in_a_line_with_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("TUNER_TRACEBACK", raising=False)
    try:
        raise KeyError("a\nb")
    except KeyError as error:
        assert exit_code_of(error) == 70
    told = capsys.readouterr().err
    assert "Traceback" not in told
    log = Path(told.rpartition(" in ")[2].strip())
    assert log.parent == tmp_path
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_ctrl_c_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"
