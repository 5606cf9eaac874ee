"""`stop`, `add`, `pause` and `resume` on the command line: what is asked, what is said, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.cli import run
from tuner.contract import InputError
from tuner.results.folder import RunFolder, create_run
from tuner.results.lock import RunLock
from tuner.results.requests import Inbox, Request


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Request]]:
    """A driver of the run `first`, which notes all requests and refuses to stop trial 9."""
    monkeypatch.chdir(tmp_path)
    folder: RunFolder = create_run(tmp_path / "runs", "first")
    folder.ledger.touch()
    lock, over, heard = RunLock(folder.path), threading.Event(), list[Request]()
    inbox = Inbox(folder, lambda said: None)
    inbox.clear()

    def loop() -> None:
        while not over.wait(0.01):
            for request in inbox.take():
                heard.append(request)
                if request.values.get("trial") == 9:
                    inbox.answer(request.name, error=InputError("there is no trial 9", expected="0 to 3"))
                else:
                    inbox.answer(request.name, message="as you like")

    thread = threading.Thread(target=loop)
    thread.start()
    yield heard
    over.set()
    thread.join()
    lock.release()


@pytest.mark.parametrize(
    ("line", "action", "values"),
    [
        ("stop first", "stop", {"trial": None}),
        ("stop first 7", "stop", {"trial": 7}),
        ("pause first", "pause", {}),
        ("resume first", "resume", {}),
        ("add first --set lora_r=64 --like 7", "add", {"params": {"lora_r": 64}, "like": 7}),
        (
            "add first --set learning_rate=1e-3 --set target_modules=[q_proj,v_proj]",
            "add",
            {"params": {"learning_rate": 1e-3, "target_modules": ["q_proj", "v_proj"]}, "like": None},
        ),
    ],
)
def test_what_is_asked(
    asked: list[Request], capsys: pytest.CaptureFixture[str], line: str, action: str, values: dict[str, Any]
) -> None:
    assert run(line.split()) == 0
    assert [(request.action, request.values) for request in asked] == [(action, values)]
    assert capsys.readouterr().out == "as you like\n"
    assert run([*line.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "first", "action": action, "message": "as you like"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("stop first 9", "there is no trial 9\n  expected: 0 to 3"),
        ("stop firts", "there is no run 'firts'"),
        ("stop first seven", "'seven' is not a valid integer"),
        ("add first --set lora_r", "not an assignment"),
    ],
)
def test_what_is_refused(asked: list[Request], capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    assert run(line.split()) == 2
    assert told in capsys.readouterr().err


def test_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    create_run(tmp_path / "runs", "first").ledger.touch()
    assert run(["pause", "first"]) == 2
    assert "no driver runs the search 'first'" in capsys.readouterr().err
