"""Files of a user's own that are named like a library lie beside the search file: no process takes them for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("click", "datasets", "json", "numpy", "optuna", "psutil", "pydantic", "ray", "torch", "trl", "yaml")
SMALL = [
    "--num-trials", "2", "--set", "train.max_steps=4", "--set", "train.eval_steps=0.5",
    "--set", "data.max_validation_rows=10", "--set", "resources.max_concurrent_trials=1",
]  # fmt: skip
OWN = {
    "run": {"program": "mine:Mine"},
    "search": {
        "num_trials": 2,
        "space": {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}},
    },
}
TOY = "from beside import SHARE\nfrom tests.programs.toy import Toy\n\n\nclass Mine(Toy):\n    share = SHARE\n"
PAIR = {"resources": {"workers_per_trial": 2, "cpus_per_trial": 2}}


@pytest.mark.parametrize(
    "settings", [None, OWN, pytest.param({**OWN, "run": {"program": "paired:Paired"}, **PAIR}, marks=pytest.mark.slow)]
)
def test_a_file_that_is_named_like_a_library(settings: dict[str, Any] | None, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user was imported')\n")
    (tmp_path / "mine.py").write_text(TOY)
    (tmp_path / "paired.py").write_text(
        TOY.replace("toy import Toy", "crew import Crew as Toy").replace("Mine", "Paired")
    )
    (tmp_path / "beside.py").write_text("SHARE = 0.5\n")
    (tmp_path / "search.json").write_text(json.dumps(settings))
    given = SMALL if settings is None else ["search.json"]
    command = [sys.executable, "-m", "tuner", "search", *given, "--json", "--storage-path", "runs", "--name", "own"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    logs = "\n".join(file.read_text() for file in (tmp_path / "runs" / "own" / "logs").rglob("*") if file.is_file())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"] and "of the user was imported" not in done.stderr + logs
