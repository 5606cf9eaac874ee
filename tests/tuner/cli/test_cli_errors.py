"""What a user reads when a command fails, and its exit code."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tuner.cli import COMMANDS, cli, run
from tuner.cli.errors import exit_code_of
from tuner.cli.options import SETTINGS
from tuner.config import FLAGS
from tuner.contract import Fault, InputError, Reason


def test_flags_are_the_ones_that_error_messages_name() -> None:
    assert {flag: dotted for flag, dotted, _ in SETTINGS} == dict(FLAGS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serch"], "no command 'serch'; did you mean search?"),
        (["frobnicate"], "the commands are search, plan, data, model, status"),
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
        (["plan", "--program", "no.such:Thing"], "no module `no.such` in"),
        (["train"], "nothing to train is given"),
        (["search", "--data", "a.jsonl", "--data", "b.jsonl"], "--data is given 2 times, and takes one value"),
        (["search", "--revision", "a", "--model-revision", "b"], "--model-revision is given 2 times"),
        (["plan", "--name", "a", "--set", "x.y=1", "--name", "b", "--name", "c"], "--name is given 3 times"),
        (["status", "first", "--storage-path", "a", "--storage-path", "b"], "--storage-path is given 2 times"),
        (["search", "--set", "search.seed=1", "--set", "search.seed=2"], "the other one is --set search.seed=1"),
        (["search", "--data", "rows/a.jsonl", "rows/b.jsonl", "rows/c.jsonl"], "rows/b.jsonl and 1 more are files of"),
        (["search", "rows/a.parquet"], "--data rows/a.parquet"),
        (["train", "best.yaml", "rows/a.csv"], "rows/a.csv is a file of rows, not a search file"),
        (["plan", "a.yaml", "b.yaml"], "2 files are given: a.yaml, b.yaml"),
        (["search", "--data", "~no-such-user/rows.jsonl"], "~no-such-user"),
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


def test_no_command_at_all_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Usage: ") and "error" not in told.splitlines()[-1] and "--help" not in told.splitlines()[-1]
    assert "submit" in told and "error:" not in told


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_that_takes_one_value_is_given_twice(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them, with values of its own kind: whatever else is wrong with them, this is said."""
    ctx = click.Context(cli.get_command(click.Context(cli), command) or cli)
    options = [p for p in ctx.command.params if isinstance(p, click.Option) and not (p.is_flag or p.multiple)]
    for option in options:
        value = "1" if option.type.name in ("integer", "float", "number", "integer range", "float range") else "x"
        assert run([command, option.opts[-1], value, option.opts[0], value]) == 2
        assert f"{option.opts[0]} is given 2 times" in capsys.readouterr().err


def test_an_input_error_says_what_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = InputError("got 3.5", where="a.yaml:7", expected="a whole number", remedy="write 3 or 4")
    assert exit_code_of(error) == 2
    assert capsys.readouterr().err == "error: a.yaml:7: got 3.5\n  expected: a whole number\n  try: write 3 or 4\n"


def test_what_a_program_could_not_do_is_told_in_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(Fault(Reason.OUT_OF_MEMORY, "the base does not fit", "a machine with more memory")) == 1
    assert capsys.readouterr().err == "error: the base does not fit\n  try: a machine with more memory\n"


def test_a_fault_of_the_tuner_is_told_in_a_line_with_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("TUNER_TRACEBACK", raising=False)
    monkeypatch.setattr("tuner.importing._loaded", [])  # of programs beside this test, whose code it would be taken for
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
