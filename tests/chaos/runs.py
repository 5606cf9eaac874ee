"""Makes run folders to damage: by hand in milliseconds, without Ray, as a finished search leaves them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.tuner.report import searches
from tuner.cli import run
from tuner.config import dump_resolved, load_experiment
from tuner.results.adapters import write_manifest
from tuner.results.ledger import Event, Kind

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = "model: {model_name_or_path: org/base}\ndata: {train: org/rows}\nsearch: {num_trials: 8}\n"


def finished_run(storage: Path, name: str = "first") -> Path:
    """Makes the run folder of a finished search of 8 trials, with settings, best adapter and a log."""
    path = storage / name
    for part in ("logs", "adapters/0001/adapter", "best", "data", "tune"):
        (path / part).mkdir(parents=True)
    resolved = {**dump_resolved(load_experiment()), "about": {"labels": {"learning_rate": "lr"}}}
    (path / "resolved.json").write_text(json.dumps(resolved, indent=2))
    (path / "experiment.yaml").write_text(WRITTEN)
    digest = hashlib.sha256((path / "resolved.json").read_bytes()).hexdigest()
    events = [signed_settings(event, digest) for event in searches.finished().events]
    write_ledger(path, events)
    (path / "best" / "adapter_model.safetensors").write_bytes(b"0" * 5000)
    base = resolved["model"]["model_name_or_path"]
    made = {"base_model_name_or_path": base, "r": 64, "lora_alpha": 128, "use_rslora": False, "use_dora": False}
    (path / "best" / "adapter_config.json").write_text(json.dumps(made))  # as the winner, trial 1, has it
    (path / "best" / "README.md").write_text("# first\n")
    (path / "best" / "train.yaml").write_text("search: {num_trials: 1}\n")
    write_manifest(path / "best", {"name": name, "trial": 1, "params": {"lora_r": 8}, "eval_loss": 4.312, "step": 100})
    return path


def signed_settings(event: Event, digest: str) -> Event:
    if event.event is not Kind.SEARCH:
        return event
    return replace(event, details={**event.details, "settings": digest})


def write_ledger(path: Path, events: list[Event]) -> None:
    (path / "trials.jsonl").write_text("".join(event.to_json() + "\n" for event in events), encoding="utf-8")


COMMANDS = (
    "status {run}",
    "status {run} --json",
    "show {run} 0",
    "show {run} 1 --json",
    "report {run} --format md",
    "compare {run} {run}",
    "export {run} --to {to}",
    "plan {run}/experiment.yaml --json",
)


def look(path: Path, to: Path, *, within: tuple[int, ...] = (0, 2)) -> list[tuple[str, int]]:
    """Runs every reading command on a run folder in this process; checks that none raises and that each exit code is in
    `within`. to: a folder for exports."""
    codes = []
    for number, command in enumerate(COMMANDS):
        words = command.format(run=path, to=to / str(number)).split()
        code = run(words)
        assert code in (within if words[0] != "plan" else (0, 2)), f"{words} ended with {code}"
        codes.append((words[0], code))
    return codes


def tuner(*arguments: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Runs the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments], cwd=cwd, env=environment, capture_output=True, timeout=timeout
    )
