"""Trials that a process group trains, with Ray Train: each gives what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainables import states
from tuner.contract import Assignment, Evaluation, Reason, Status
from tuner.driver.session import Outcome
from tuner.results.ledger import Event, Kind, read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]
CREW = "tests.programs.crew:Crew"
Toy = Callable[..., Outcome]


@pytest.fixture
def crew(toy: Toy) -> Toy:
    """Runs a toy search whose trials have two processes each, one trial at a time."""

    def run(**settings: Any) -> Outcome:
        two: dict[str, Any] = {"run__program": CREW, "resources__workers_per_trial": 2, "resources__cpus_per_trial": 2}
        return toy(**{**two, **settings})

    return run


def processes_of_groups() -> list[psutil.Process]:
    """The processes below this one that Ray Train has started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            found += [child] if "RayTrainWorker" in " ".join(child.cmdline()) else []
        except psutil.Error:
            continue
    return found


def given_back() -> bool:
    """Whether all CPUs are free in Ray again, within 30 s."""
    import ray

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"]:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.slow
def test_a_fault_in_one_process_is_the_trials_and_takes_no_other_trial_with_it(crew: Toy) -> None:
    """Died, too large, raised: lost and tried again, arranged smaller, failed with what it said; each while the other
    process waited for it."""
    behaviours = {"1": "exit_once", "2": "too_large", "3": "raise"}
    outcome = crew(search__num_trials=5, train__each=behaviours, scheduler__kind="none")
    trials = outcome.record.trials
    assert [(trials[n].reason, trials[n].attempt) for n in range(5)] == [
        (Reason.BUDGET, 1), (Reason.BUDGET, 2), (Reason.BUDGET, 2), (Reason.ERROR, 1), (Reason.BUDGET, 1),
    ]  # fmt: skip
    retries = {event.number: event for event in read_ledger(outcome.path / "trials.jsonl") if event.event is Kind.RETRY}
    assert retries[1].reason == Reason.INFRASTRUCTURE and "process 1 of the trial's 2 was lost" in said(retries[1])
    assert retries[2].reason == Reason.OUT_OF_MEMORY and retries[2].details["fit"]["micro_batch"] == 4
    assert trials[1].setup["resumed_step"] > 0, "it went on from its state"
    assert trials[3].message == "ValueError: the toy broke" and "toy.py" in trials[3].traceback
    assert outcome.record.counts["status"] == {Status.COMPLETED: 4, Status.FAILED: 1}
    assert given_back() and not processes_of_groups()


def said(event: Event) -> str:
    return str(event.details["message"])


@pytest.mark.slow
def test_a_process_that_hangs_is_found_and_its_group_ended(crew: Toy) -> None:
    """The other one waits in an exchange: both are killed, and what they held is given back for the next attempt."""
    outcome = crew(search__num_trials=2, train__each={"1": "hang_once"}, scheduler__kind="none", run__hang_timeout=40)
    trial = outcome.record.trials[1]
    assert (trial.reason, trial.attempt, trial.losses) == (Reason.BUDGET, 2, {"hung": 1})
    assert given_back() and not processes_of_groups()


@pytest.mark.slow
def test_a_worker_that_is_killed_while_its_group_starts_gives_back_what_the_group_holds(crew: Toy) -> None:
    """Else the next attempt would wait for its CPUs to the end of the search."""
    killed: list[int] = []
    over = threading.Event()
    threading.Thread(target=kill_as_a_group_starts, args=(killed, over), daemon=True).start()
    outcome = crew(search__num_trials=2, scheduler__kind="none", run__hang_timeout=120)
    over.set()
    trials = outcome.record.trials
    assert killed and [(trials[n].reason, trials[n].losses) for n in range(2)] == [
        (Reason.BUDGET, {"infrastructure": 1}), (Reason.BUDGET, {}),
    ]  # fmt: skip
    assert given_back() and not processes_of_groups()


def kill_as_a_group_starts(killed: list[int], over: threading.Event) -> None:
    """Kills the worker of the first group as soon as Ray has made the group's placement group."""
    from ray.util import placement_group_table

    def of_groups() -> dict[str, Any]:
        return {
            key: one
            for key, one in placement_group_table().items()
            if one["state"] == "CREATED" and len(one["bundles"]) == 2
        }

    before = set(of_groups())
    while not over.wait(0.01):
        if set(of_groups()) - before:
            workers = [p for p in psutil.Process().children(recursive=True) if "TrialActor" in " ".join(p.cmdline())]
            killed += [p.pid for p in workers]
            for worker in workers:
                worker.kill()
            return


SMALL = [
    "--json", "--num-trials", "4", "--sampler", "random", "--set", "train.max_steps=9", "--set",
    "data.max_validation_rows=30", "--set", "resources.max_concurrent_trials=1", "--set", "resources.cpus_per_trial=2",
]  # fmt: skip


def search(folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", "search", "--name", name, "--storage-path", str(folder), *SMALL, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), states.EVERY: "0"}, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], ledger: Path) -> SearchRecord:
    answer, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    json.loads(answer)
    return SearchRecord.fold(read_ledger(ledger))


def kill_a_process_of_trial(number: int, process: subprocess.Popen[str], ledger: Path) -> None:
    """Kills the second process of a trial after its second evaluation."""
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        if sum(f'"number":{number}' in line and '"event":"evaluation"' in line for line in lines) >= 2:
            break
        time.sleep(0.05)
    group = [child for child in psutil.Process(process.pid).children(recursive=True) if _is_of_a_group(child)]
    assert len(group) == 2
    max(group, key=lambda one: one.pid).kill()


def _is_of_a_group(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_search_of_two_processes_a_trial(tmp_path: Path, killed: bool) -> None:
    """Stops at rungs, and goes on from a state where a process was killed; every trial with the losses that one process
    has, the winner's adapter one that plain peft loads."""
    ledger = tmp_path / "two" / "trials.jsonl"
    process = search(tmp_path, "two", "--set", "resources.workers_per_trial=2")
    if killed:
        kill_a_process_of_trial(0, process, ledger)
    record = ended(process, ledger)
    assert record.trials[0].attempt == 1 + killed
    assert (record.trials[0].setup["resumed_step"] >= 2) is killed
    assert {trial.setup["processes"] for trial in record.ended} == {2}
    assert Reason.RUNG in {trial.reason for trial in record.ended}
    for number, trial in record.trials.items():
        alone = trained_alone(tmp_path / "two", record, number)
        assert [(p.step, p.tokens) for p in trial.points] == [(e.step, e.tokens) for e in alone]
        for mine, theirs in zip(trial.points, alone, strict=True):
            assert mine.value == pytest.approx(theirs.eval_loss, abs=1e-5)
            assert mine.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
    assert _loads(tmp_path / "two" / "best") > 0


def trained_alone(run: Path, record: SearchRecord, number: int) -> list[Evaluation]:
    """Trains the same trial in this process alone, for as many evaluations as it had in the search; gives the curve."""
    import torch

    from trainables.sft import SFT

    torch.set_num_threads(1)
    resolved = json.loads((run / "resolved.json").read_text())
    settings = {name: resolved[name] for name in ("model", "data", "train")}
    program = SFT(settings, SFT.prepare(settings, run / "data"))
    trial, recipe = record.trials[number], record.trials[0]
    shares = tuple(point.step / recipe.points[-1].step for point in recipe.points)
    folder = run / "alone" / str(number)
    folder.mkdir(parents=True)
    program.start(Assignment(number, trial.params, resolved["about"]["seeds"]["trial"], shares, str(folder)))
    curve = [program.step() for _ in trial.points]
    program.stop()
    return curve


def _loads(folder: Path) -> int:
    """The number of tensors B of the adapter that are not zero, as plain peft loads it."""
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(str(folder))
    return sum(bool(tensor.any()) for name, tensor in model.named_parameters() if "lora_B" in name)
