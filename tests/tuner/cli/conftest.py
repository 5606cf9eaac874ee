"""Run folders for the tests of commands that only read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.runs import write_ledger
from tests.tuner.report import searches


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the runs `first` and `found`, which are over, and `gone`, which lost its driver."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name, tape in (("first", searches.finished()), ("found", searches.found()), ("gone", searches.running())):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_ledger(folder, tape.events)
        (folder / ".lock").touch()
        rate = 0.0003 if name == "first" else 0.001
        resolved = {"train": {"learning_rate": rate, "lora_r": 8}, "run": {"program": "sft", "name": name}}
        (folder / "resolved.json").write_text(json.dumps(resolved), encoding="utf-8")
    best = tmp_path / "runs" / "found" / "best"
    best.mkdir()
    for name in ("manifest.json", "train.yaml"):
        (best / name).write_text("{}", encoding="utf-8")
    return tmp_path
