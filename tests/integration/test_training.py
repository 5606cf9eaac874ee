"""The winner of a search trained on: the same loss again, other seeds, a longer run that is cut off and goes on."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_default_search import reloaded_loss
from trainables import states
from tuner import open_run
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # five starts of Ray, 15 s each


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tuner", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), states.EVERY: "0"}


def run(folder: Path, *words: str, code: int = 0) -> tuple[str, str]:
    """What a command wrote on both streams."""
    done = subprocess.run(
        command(*words), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


def record(folder: Path, name: str) -> SearchRecord:
    return open_run(name, folder / "runs").record()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run `first`: four trials of 20 steps on the embedded example."""
    folder = tmp_path_factory.mktemp("searched")
    _, told = run(folder, "search", "--name", "first", "--num-trials", "4", "--set", "train.max_steps=20")
    assert "python -m tuner train first\n" in told
    yield folder


def test_the_same_point_again_and_with_other_seeds(searched: Path) -> None:
    """Packed: three seeds of one point share the base. The first has the search's own seed, and so its loss."""
    best = record(searched, "first").best
    assert best is not None and best.best_value is not None
    packed = ("--set", "resources.trials_per_gpu=3")
    answer, told = run(searched, "train", "first", "--seeds", "3", "--json", "--name", "seeds", *packed)
    trials = record(searched, "seeds").trials
    losses = [trials[number].best_value for number in range(3)]
    assert losses[0] == pytest.approx(best.best_value, abs=1e-4)
    assert len({round(loss or 0, 4) for loss in losses}) == 3, "a seed of its own for each"
    assert json.loads(answer)["best"]["eval_loss"] == pytest.approx(min(loss for loss in losses if loss is not None))
    assert "3 seeds: mean " in told and "python -m tuner export seeds --to DIR" in told
    assert "tuner train seeds" not in told and "trains trial" in told


def test_a_longer_run_from_the_adapter_is_cut_off_and_goes_on(searched: Path) -> None:
    first = record(searched, "first")
    assert first.best is not None and first.best.best_value is not None
    words = ("train", "first", "--epochs", "0.5", "--from-adapter", "--name", "longer", "--plain")
    driver = subprocess.Popen(
        command(*words), cwd=searched, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        until(lambda: len(record(searched, "longer").trials[0].points) > 2)
        driver.send_signal(signal.SIGTERM)
        told, _ = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 143 and "python -m tuner search --resume longer" in told
    rows, batch = 1443, first.best.params["effective_batch_size"]
    steps = math.ceil(0.5 * math.ceil(rows / batch))
    assert "0.5 passes over the rows in place of 20 steps" in told and "goes on from" in told
    answer, _ = run(searched, "search", "--resume", "longer", "--json")
    trial = record(searched, "longer").trials[0]
    assert (trial.attempt, trial.max_steps, trial.step) == (2, steps, steps)
    assert trial.setup["resumed_step"] > 0 and str(trial.reason) == "budget"
    assert trial.points[0].value is not None and trial.points[0].value < 0.9 * first.trials[0].points[0].value
    found: dict[str, Any] = json.loads(answer)
    assert found["best"]["eval_loss"] < first.best.best_value
    assert math.isclose(reloaded_loss(found), found["best"]["eval_loss"], abs_tol=1e-3)
    run(searched, "export", "longer", "--to", "adapter")
    assert (searched / "adapter" / "adapter_model.safetensors").is_file()


def test_without_a_file(searched: Path) -> None:
    demo = ROOT / "tuner" / "demo"
    given = ("--model", str(demo / "base"), "--data", str(demo / "validation.jsonl"), "--epochs", "1")
    run(searched, "train", *given, "--name", "alone", "--set", "train.learning_rate=3e-3")
    trial = record(searched, "alone").trials[0]
    assert str(trial.reason) == "budget" and trial.step == math.ceil(115 / 16)


def until(true: Any, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except Exception:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come true")
