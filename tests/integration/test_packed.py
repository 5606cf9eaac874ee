"""Packed trials in a real search: every slot a Ray trial of its own, and each the trial it would be alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trainables import states
from tuner.contract import Reason
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]


def search(folder: Path, name: str, *arguments: str) -> tuple[SearchRecord, str]:
    done = subprocess.run(
        [
            sys.executable, "-m", "tuner", "search", "--json", "--name", name, "--storage-path", str(folder),
            "--sampler", "random", "--set", "train.max_steps=9", "--set", "data.max_validation_rows=32", *arguments,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    return SearchRecord.fold(read_ledger(folder / name / "trials.jsonl")), done.stderr


def test_packed_trials_have_the_losses_of_unpacked_ones(tmp_path: Path) -> None:
    everything = ("--num-trials", "4", "--scheduler", "none")
    alone, _ = search(tmp_path, "alone", *everything)
    packed, _ = search(tmp_path, "packed", *everything, "--trials-per-gpu", "2")
    assert {t.reason for t in packed.ended} == {Reason.BUDGET}
    for number, trial in alone.trials.items():
        other = packed.trials[number]
        assert other.params == trial.params
        assert [p.step for p in other.points] == [p.step for p in trial.points]
        for mine, theirs in zip(other.points, trial.points, strict=True):
            assert mine.eval_loss == pytest.approx(theirs.eval_loss, abs=1e-5)
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
    assert (tmp_path / "packed" / "best" / "adapter_model.safetensors").is_file()


def test_packed_trials_are_stopped_at_rungs_and_their_slots_filled_again(tmp_path: Path) -> None:
    record, _ = search(tmp_path, "packed", "--num-trials", "7", "--trials-per-gpu", "2")
    assert len(record.ended) == 7
    assert record.counts["reason"].get("rung", 0) >= 1
    assert record.recipe and record.recipe.reason is Reason.BUDGET


def test_what_cannot_be_packed_runs_unpacked_and_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "plan", "--trials-per-gpu", "4", "--set", "train.use_dora=true"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trials run unpacked: use_dora" in " ".join(done.stdout.split())


def test_what_cannot_be_packed_runs_beside_the_packed_ones(tmp_path: Path) -> None:
    """A DoRA trial on a base of its own, its neighbours on the engine's; each is the trial it would be alone."""
    space = '{"parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": true}, '
    space += '"use_dora": {"type": "choice", "values": [false, true]}}}'
    everything = ("--num-trials", "5", "--scheduler", "none", "--set", f"search.space={space}")
    alone, _ = search(tmp_path, "alone", *everything)
    mixed, said = search(tmp_path, "mixed", *everything, "--trials-per-gpu", "3")
    assert "runs alone, beside the packed ones" in said
    assert {trial.params["use_dora"] for trial in alone.ended} == {False, True}
    for number, trial in alone.trials.items():
        other = mixed.trials[number]
        assert (other.params, other.reason) == (trial.params, Reason.BUDGET)
        assert other.eval_loss == pytest.approx(trial.eval_loss, abs=1e-4)


def test_auto_says_how_many_it_chose_and_why(tmp_path: Path) -> None:
    record, said = search(tmp_path, "auto", "--num-trials", "4", "--trials-per-gpu", "auto")
    assert len(record.ended) == 4
    assert "at a time (steps a second of all trials, by their number: 1:" in said


def test_an_engine_that_dies_takes_no_trial_with_it(tmp_path: Path) -> None:
    """Killed while its trials train, it is replaced, and they go on from their last states to the losses they would
    have had."""
    everything = ("--num-trials", "3", "--scheduler", "none", "--set", "train.max_steps=60")
    alone, _ = search(tmp_path, "alone", *everything, "--trials-per-gpu", "3")
    ledger = tmp_path / "killed" / "trials.jsonl"
    command = [
        sys.executable, "-m", "tuner", "search", "--json", "--name", "killed", "--storage-path", str(tmp_path),
        "--sampler", "random", "--set", "data.max_validation_rows=32", *everything, "--trials-per-gpu", "3",
    ]  # fmt: skip
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), states.EVERY: "0"}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 240
        while not ledger.exists() or ledger.read_text().count('"event":"evaluation"') < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        killed = [child for child in psutil.Process(process.pid).children(recursive=True) if _is_engine(child)]
        assert killed
        for engine in killed:
            engine.kill()
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    record = SearchRecord.fold(read_ledger(ledger))
    assert any(trial.attempt > 1 for trial in record.ended)
    assert any(trial.setup.get("resumed_step") for trial in record.ended)
    for number, trial in alone.trials.items():
        assert record.trials[number].eval_loss == pytest.approx(trial.eval_loss, abs=1e-4)


def _is_engine(process: psutil.Process) -> bool:
    """The one process that has torch: Ray names it after the call that it is in."""
    try:
        return any("libtorch" in place.path for place in process.memory_maps())
    except psutil.Error:
        return False
