"""Packed trials in a real search: every slot is a Ray trial of its own, and gives what the same trial gives
unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.trainables.packed.architectures import LEAKY, build
from trainables import states
from tuner.config import load_experiment
from tuner.contract import Reason
from tuner.driver.session import Outcome, run_search
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]


# Settings of all searches: few steps, few rows, and no trial stopped early unless a test says otherwise
SETTINGS = {"search.sampler": "random", "data.max_validation_rows": 32, "train.max_steps": 18}
EVERYTHING = {**SETTINGS, "search.num_trials": 4, "scheduler.kind": "none"}
SHORT = {**EVERYTHING, "search.num_trials": 3, "train.max_steps": 6}


def search(folder: Path, name: str, settings: Mapping[str, Any], **more: Any) -> SearchRecord:
    """Runs a search on the embedded example in the Ray that the tests share."""
    flags = {**settings, **{name.replace("__", "."): value for name, value in more.items()}}
    outcome = run_search(load_experiment(None, (), {**flags, "run.name": name, "run.storage_path": str(folder)}))
    assert outcome.exit_code == 0, [(t.number, t.reason, t.message) for t in outcome.record.ended]
    return outcome.record


@pytest.fixture(scope="module")
def alone(ray: None, tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """The trials of `EVERYTHING`, each in a worker of its own."""
    return search(tmp_path_factory.mktemp("alone"), "alone", EVERYTHING)


def test_packed_trials_have_the_losses_of_unpacked_ones(ray: None, tmp_path: Path) -> None:
    alone = search(tmp_path, "alone", SHORT)
    packed = search(tmp_path, "packed", SHORT, resources__trials_per_gpu=2)
    assert {t.reason for t in packed.ended} == {Reason.BUDGET}
    for number, trial in alone.trials.items():
        other = packed.trials[number]
        assert other.params == trial.params
        assert [p.step for p in other.points] == [p.step for p in trial.points]
        for mine, theirs in zip(other.points, trial.points, strict=True):
            assert mine.value == pytest.approx(theirs.value, abs=1e-5)
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
    assert (tmp_path / "packed" / "best" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_packed_trials_are_stopped_at_rungs_and_their_slots_filled_again(ray: None, tmp_path: Path) -> None:
    record = search(tmp_path, "packed", SETTINGS, search__num_trials=7, resources__trials_per_gpu=2)
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


@pytest.mark.slow
def test_what_cannot_be_packed_runs_beside_the_packed_ones(ray: None, tmp_path: Path) -> None:
    """A DoRA trial on a base of its own, its neighbours on the engine's; each is the trial it would be alone."""
    rate = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
    space = {"parameters": {"learning_rate": rate, "use_dora": {"type": "choice", "values": [False, True]}}}
    settings = {**EVERYTHING, "train.max_steps": 9, "search.space": space, "search.seed": 6}  # trial 1 is the DoRA
    alone = search(tmp_path, "alone", settings)
    mixed = search(tmp_path, "mixed", settings, resources__trials_per_gpu=3)
    assert any("runs alone, beside the packed ones" in note for note in mixed.notes)
    assert {trial.params["use_dora"] for trial in alone.ended} == {False, True}
    for number, trial in alone.trials.items():
        other = mixed.trials[number]
        assert (other.params, other.reason) == (trial.params, Reason.BUDGET)
        assert other.value == pytest.approx(trial.value, abs=1e-4)


@pytest.mark.slow
def test_auto_says_how_many_it_chose_and_why(ray: None, tmp_path: Path) -> None:
    record = search(tmp_path, "auto", SETTINGS, search__num_trials=4, resources__trials_per_gpu="auto")
    assert len(record.ended) == 4
    assert any("at a time (steps a second of all trials, by their number: 1:" in note for note in record.notes)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a search over a base whose convolution reads the token before, also where that is another row's."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("leaky") / "base"
    build(*LEAKY["lfm2"], vocab_size=2048).save_pretrained(folder)
    AutoTokenizer.from_pretrained(ROOT / "tuner" / "demo" / "base").save_pretrained(folder)
    demo = ROOT / "tuner" / "demo"
    return {
        **EVERYTHING, "model.model_name_or_path": str(folder), "train.max_steps": 4,
        "data.train": str(demo / "train.jsonl"), "data.validation": str(demo / "validation.jsonl"),
    }  # fmt: skip


@pytest.mark.slow
def test_auto_takes_one_trial_at_a_time_where_the_base_cannot_be_packed(
    ray: None, leaky: dict[str, Any], tmp_path: Path
) -> None:
    record = search(tmp_path, "auto", leaky, resources__trials_per_gpu="auto")
    assert {trial.reason for trial in record.ended} == {Reason.BUDGET} and len(record.ended) == 4
    (note,) = [note for note in record.notes if "cannot be packed" in note]
    assert note.startswith("one trial at a time on a GPU: trials on Lfm2ForCausalLM cannot be packed: a row of")


@pytest.mark.slow
def test_a_number_is_refused_before_the_first_trial_where_the_base_cannot_be_packed(
    ray: None, leaky: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**leaky, "run.name": "asked", "run.storage_path": str(tmp_path), "resources.trials_per_gpu": 2}
    outcome = run_search(load_experiment(None, (), settings))
    assert outcome.exit_code == 1 and not outcome.record.trials
    halt = list(read_ledger(tmp_path / "asked" / "trials.jsonl"))[-1].details
    assert "trials on Lfm2ForCausalLM cannot be packed: a row of" in halt["message"]
    assert "set resources.trials_per_gpu to 1, or to auto" in halt["remedy"]


@pytest.mark.slow
def test_an_engine_that_dies_takes_no_trial_with_it(alone: SearchRecord, tmp_path: Path) -> None:
    """Killed while its trials train, it is replaced, and they go on from their last states to the losses they would
    have had."""
    ledger = tmp_path / "killed" / "trials.jsonl"
    sets = {**EVERYTHING, "resources.trials_per_gpu": 3}
    command = [
        sys.executable, "-m", "tuner", "search", "--json", "--name", "killed", "--storage-path", str(tmp_path),
        *(word for name, value in sets.items() for word in ("--set", f"{name}={value}")),
    ]  # fmt: skip
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), states.EVERY: "0"}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        _wait_for(process, ledger, '"event":"started"', 1)
        engines = [child for child in psutil.Process(process.pid).children(recursive=True) if _is_engine(child)]
        assert engines
        _wait_for(process, ledger, '"event":"evaluation"', 5)
        for engine in engines:
            engine.kill()
        _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    record = SearchRecord.fold(read_ledger(ledger))
    assert any(trial.attempt > 1 for trial in record.ended)
    assert any(trial.setup.get("resumed_step") for trial in record.ended)
    for number, trial in alone.trials.items():
        assert record.trials[number].value == pytest.approx(trial.value, abs=1e-4)


def _wait_for(process: subprocess.Popen[str], ledger: Path, event: str, count: int) -> None:
    deadline = time.monotonic() + 240
    while not ledger.exists() or ledger.read_text().count(event) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def _is_engine(process: psutil.Process) -> bool:
    """Whether a process has torch loaded, which only the engine has: Ray names it after the call that it is in."""
    try:
        return any("libtorch" in place.path for place in process.memory_maps())
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("trials_per_gpu", [1, 2])
def test_a_program_that_exits_fails_its_trials_at_once(toy: Callable[..., Outcome], trials_per_gpu: int) -> None:
    began = time.monotonic()
    outcome = toy(
        run__program="tests.programs.quitter:Quitter", search__num_trials=2, resources__trials_per_gpu=trials_per_gpu,
        run__trackers=[],
    )  # fmt: skip
    assert [(trial.reason, trial.message) for trial in outcome.record.ended] == [(Reason.ERROR, "SystemExit: 3")] * 2
    assert outcome.exit_code == 1 and time.monotonic() - began < 60


@pytest.mark.slow
def test_a_program_whose_imports_fail_ends_the_search_and_says_why(toy: Callable[..., Outcome]) -> None:
    outcome = toy(
        run__program="tests.programs.quitter:Unwarmed", search__num_trials=2, resources__trials_per_gpu=2,
        run__trackers=[],
    )  # fmt: skip
    assert outcome.exit_code == 1 and not outcome.record.trials
    assert outcome.record.halt_message == "no engine for packed trials: ImportError: libfoo"
    assert "logs/driver.log" in outcome.record.halt_remedy
    assert 'raise ImportError("libfoo")' in (outcome.path / "logs" / "driver.log").read_text()
