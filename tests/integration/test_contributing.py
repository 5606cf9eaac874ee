"""The program that CONTRIBUTING.md tells a reader to write, run as it is printed there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

TEXT = Path(__file__).resolve().parents[2].joinpath("CONTRIBUTING.md").read_text()


def block(language: str, holds: str) -> str:
    """The one code block in a language that contains `holds`."""
    found = [text for text in re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S) if holds in text]
    assert len(found) == 1, f"{len(found)} blocks of {language} with {holds!r}"
    return found[0]


def tuner(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TUNER_ALLOW_MODULES": ""}
    return subprocess.run(
        [sys.executable, "-m", "tuner", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_its_program_is_planned_and_searched_and_finds_the_rate(tmp_path: Path) -> None:
    (tmp_path / "parabola.py").write_text(block("python", "class Parabola"))
    (tmp_path / "search.yaml").write_text(block("yaml", "parabola:Parabola"))
    planned = tuner("plan", "search.yaml", "--allow-module", "parabola", "--json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    shares = json.loads(planned.stdout)["evaluate_at"]
    assert {0.2, 0.6, 0.8} <= {round(share, 6) for share in shares} and 0.1 not in shares
    done = tuner("search", "search.yaml", "--max-concurrent-trials", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    best = tmp_path / "runs" / "first" / "best"
    told = json.loads((best / "manifest.json").read_text())
    assert told["metrics"]["eval_loss"] < 1, "the recipe's is 1.2"
    x = json.loads((best / "x.json").read_text())
    assert (x - 3) ** 2 == told["metrics"]["eval_loss"]
    card = (best / "README.md").read_text()
    assert "trainable parameters: 1\n" in card and "SFTTrainer" not in card
    assert yaml.safe_load((best / "train.yaml").read_text())["run"]["program"] == "parabola:Parabola"
    merged = tuner("export", "first", "--to", "out", "--merge", "--program", "parabola:Parabola", cwd=tmp_path)
    assert merged.returncode == 2 and "the program parabola:Parabola merges no adapters" in merged.stderr
