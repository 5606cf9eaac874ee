"""A command line that a message tells a person to run, run as it is printed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.tuner.report import searches
from tuner.cli import run
from tuner.config.paths import storage_folder
from tuner.contract import InputError
from tuner.results.command_line import READ_AT, command_line, resume_command_line, run_command_line
from tuner.results.folder import RunFolder, create_run
from tuner.results.lock import RunLock
from tuner.results.requests import ask


def words_of(text: str) -> list[str]:
    """The words that a shell makes of the command line in a message."""
    start = text.index("python -m tuner ")
    return shlex.split(text[start:].splitlines()[0].rstrip("),"))[3:]


@pytest.mark.parametrize("storage", ["runs", "other", "my runs", "it's $HOME", "a;b", "deep/er", "é"])
def test_it_finds_the_run_wherever_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / storage / "cut"
    folder.mkdir(parents=True)
    tape = searches.interrupted()
    (folder / "trials.jsonl").write_text("".join(e.to_json() + "\n" for e in tape.events), encoding="utf-8")
    assert run(words_of(run_command_line(folder, "status", "cut"))) == 0
    told = capsys.readouterr().out
    resume = next(line for line in told.splitlines() if "--resume" in line)
    assert words_of(resume) == words_of(resume_command_line(folder))
    assert ("--storage-path" in resume) == (storage != "runs")
    monkeypatch.chdir(Path("/"))  # from elsewhere the path is whole
    assert run(words_of(run_command_line(folder, "status", "cut"))) == 0


def test_every_error_about_a_run_names_its_storage_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = create_run(tmp_path / "my runs", "first")
    folder.ledger.touch()
    texts = []
    for call in (
        lambda: create_run(tmp_path / "my runs", "first"),
        lambda: ask(folder, "stop", {}),
        lambda: RunLock(folder.path),
    ):
        lock = RunLock(folder.path) if len(texts) == 2 else None
        with pytest.raises(InputError) as raised:
            call()
        texts.append(str(raised.value))
        if lock is not None:
            lock.release()
    for text in texts:
        words = words_of(text[: text.rindex("'my runs'") + len("'my runs'")])
        assert words[words.index("--storage-path") + 1] == "my runs", text


def test_a_run_in_an_object_store_is_named_by_its_uri() -> None:
    folder = RunFolder(storage_folder("s3://bucket/my runs") / "first")
    assert words_of(resume_command_line(folder.path))[-2:] == ["--storage-path", "s3://bucket/my runs"]


def test_a_cluster_is_named_in_place_of_a_folder() -> None:
    line = command_line("status", "first", storage_path="elsewhere", address="http://head:8265/?a=1&b=2")
    assert words_of(line) == ["status", "first", "--address", "http://head:8265/?a=1&b=2"]


def test_where_a_jobs_messages_are_read_the_run_is_at_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(READ_AT, "http://head:8265")
    at = ["--address", "http://head:8265"]
    assert words_of(run_command_line(tmp_path / "first", "status", "first")) == ["status", "first", *at]
    assert words_of(resume_command_line(tmp_path / "first")) == ["submit", "--resume", "first", *at]
