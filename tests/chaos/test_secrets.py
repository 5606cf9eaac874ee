"""Secrets planted wherever a user or a program can put one: none is found in the run folder or on the terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.chaos.faults import Count
from tests.chaos.runs import ROOT
from tests.integration.conftest import SPACE
from tests.programs.leaky import SECRETS, WORD
from tuner.cli import run

NO_FORM = "correct-horse-battery-9"


def test_none_is_written_anywhere(tmp_path: Path, fault: Count) -> None:
    file = tmp_path / "search.yaml"
    written = {
        "search": {"num_trials": 4, "space": SPACE},
        "run": {"program": "tests.programs.leaky:Leaky", "name": "leaky", "min_free_mb": 0},
        "resources": {"max_concurrent_trials": 1},
    }
    comment = "".join(f"# my token: {secret}\n" for secret in (*SECRETS, NO_FORM))
    file.write_text(comment + yaml.safe_dump(written))
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), WORD: NO_FORM, "HF_TOKEN": SECRETS[0], "WANDB_API_KEY": SECRETS[2],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "search", str(file), "--storage-path", str(tmp_path), "--json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["counts"]["reason"] == {"budget": 2, "error": 1, "out_of_memory": 1} or done.stdout
    path = tmp_path / "leaky"
    places = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    places |= {"standard output": done.stdout.encode(), "standard error": done.stderr.encode()}
    for number in ("1", "2"):
        shown = subprocess.run(
            [sys.executable, "-m", "tuner", "show", "leaky", number, "--storage-path", str(tmp_path)],
            cwd=ROOT, env=environment, capture_output=True, timeout=60,
        )  # fmt: skip
        places[f"show {number}"] = shown.stdout + shown.stderr
    for secret in (*SECRETS, NO_FORM):
        assert not [place for place, content in places.items() if secret.encode() in content], secret
    told = {
        place for place, content in places.items() if b"[Hugging Face token]" in content or b"[HF_TOKEN]" in content
    }
    assert {"experiment.yaml", "trials.jsonl", "study.journal", "best/README.md", "logs/prepare.log",
            "logs/trial-0001.log", "show 1", "show 2", "standard error"} <= told  # fmt: skip
    assert places["logs/trial-0001.log"].count(b"Traceback") >= 1 and b"[LEAKY_API_KEY]" in places["logs/prepare.log"]
    fault("a secret where it can be put", len(SECRETS) + 1)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("place", ["file", "--set", "--model", "space"])
def test_none_is_taken_among_settings(
    secret: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Count,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "search.yaml"
    model = {"model_name_or_path": f"https://hub/{secret}/x" if place == "file" else "a/b"}
    space = {"parameters": {"target_modules": {"type": "choice", "values": ["mlp", secret]}}}
    search = {"search": {"space": space}} if place == "space" else {}
    file.write_text(yaml.safe_dump({"model": model, "data": {"train": "c/d"}, **search}))
    extra = {"--set": ["--set", f"data.name={secret}"],
             "--model": ["--model", secret]}.get(place, [])  # fmt: skip
    for command in ("plan", "search"):
        assert run([command, str(file), *extra]) == 2
        told = capsys.readouterr()
        assert "looks like a secret" in told.err and secret not in told.err + told.out
        assert re.search(r"search\.yaml:\d|--set|--model", told.err)
    assert [p.name for p in tmp_path.iterdir()] == ["search.yaml"]
    fault("a secret where it can be put")
