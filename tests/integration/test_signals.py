"""Ctrl-C and SIGTERM on a real search in a process of its own: exit code, what is kept, the line that resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.chaos.faults import Count
from tests.integration.conftest import SPACE, TOY
from tuner.contract import Reason
from tuner.results.ledger import Kind, read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", "search", *arguments, "--storage-path", str(folder)],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_evaluations(ledger: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if ledger.exists() and sum(e.event is Kind.EVALUATION for e in read_ledger(ledger)) >= count:
            return
        time.sleep(0.2)
    raise AssertionError("the search did not get going")


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def name(process: psutil.Process) -> str:
    """The current name of a process; "" where it is gone."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.chaos
@pytest.mark.parametrize(("number", "twice", "code"), [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)])
def test_a_signal_saves_and_the_search_resumes(tmp_path: Path, number: signal.Signals, twice: bool, code: int) -> None:
    file = tmp_path / "search.yaml"
    train = {"max_steps": 27, "pace": 0.2}
    search = {"num_trials": 5, "space": SPACE}
    file.write_text(yaml.safe_dump({"train": train, "search": search, "run": {"program": TOY}}))
    process = start(tmp_path, str(file), "--name", "cut")
    ledger = tmp_path / "cut" / "trials.jsonl"
    wait_for_evaluations(ledger, 4)
    family = descendants(process.pid)
    process.send_signal(number)
    if twice:
        time.sleep(0.8)
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "python -m tuner search --resume cut" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, f"left behind: {[p.cmdline() for p in alive]}"

    before = SearchRecord.fold(read_ledger(ledger))
    assert before.outcome == "interrupted" and any(t.interrupted for t in before.trials.values())
    ended = {n: t.trial for n, t in before.trials.items() if t.has_ended}

    resumed = start(tmp_path, "--resume", "cut", "--json")
    output, errors = resumed.communicate(timeout=180)
    assert resumed.returncode == 0, errors
    answer = json.loads(output)
    assert sum(answer["counts"]["status"].values()) == 5
    after = SearchRecord.fold(read_ledger(ledger))
    assert {n: after.trials[n].trial for n in ended} == ended, "what had ended was not run again"
    assert sorted(after.trials) == [0, 1, 2, 3, 4]
    assert after.recipe and after.recipe.reason in (Reason.BUDGET, Reason.FLATLINE)


def test_a_sigterm_while_ray_ends_kills_nothing(tmp_path: Path) -> None:
    """Neither in the second in which its processes are stopped, nor after it."""
    code = """
import os, signal, sys
from pathlib import Path
from tuner.ray_cluster.session import import_ray, ray_session
from tuner.signals import StopSignals
ray = import_ray(None)
with StopSignals() as signals:
    with ray_session(None, Path(sys.argv[1])):
        signals.mute()
        node = ray._private.worker._global_node
        stop = node.kill_all_processes
        def term(*arguments, **more):
            os.kill(os.getpid(), signal.SIGTERM)
            stop(*arguments, **more)
        node.kill_all_processes = term
    os.kill(os.getpid(), signal.SIGTERM)
    print("said")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "said\n"), done.stderr


def early(folder: Path, number: signal.Signals, after: float) -> list[psutil.Process]:
    """Sends a signal `after` seconds; checks that no folder of the search is left, or one that a resume continues.

    Gives Ray's agents, to be checked later: in the middle of Ray's start they outlive it by up to a minute.
    """
    search = ["--program", TOY, "--set", "train.pace=0.5", "--set", f"search.space={json.dumps(SPACE)}"]
    process = start(folder, *search, "--name", "early", "--num-trials", "3")
    time.sleep(after)
    family = descendants(process.pid)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    if "Traceback" in errors:  # Python itself had not got past our first line, which imports what handles signals
        assert f"{ROOT}/tuner" not in errors.replace(f"{ROOT}/tuner/__main__.py", ""), errors
        return []
    assert process.returncode in (128 + number, -number), errors
    assert output == "" and "fault of the tuner" not in errors
    agents = [p for p in family if name(p).startswith(("ray::RuntimeEnvAgent", "ray::DashboardAgent"))]
    _, alive = psutil.wait_procs(set(family) - set(agents), timeout=15)
    assert all(name(p).startswith("ray::") and "Agent" in name(p) for p in alive), [name(p) for p in alive]
    agents += alive
    ledger = folder / "early" / "trials.jsonl"
    if ledger.exists() and SearchRecord.fold(read_ledger(ledger)).trials:
        assert "--resume early" in errors
    else:
        assert "interrupted" in errors or process.returncode == -number, "killed before Python listened"
        assert not (folder / "early").exists(), "a search without a trial is none"
    return agents


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, 0.2), (signal.SIGINT, 0.6), pytest.param(signal.SIGTERM, 2.5, marks=pytest.mark.chaos)],
)
def test_a_signal_before_the_first_trial_leaves_nothing(tmp_path: Path, number: signal.Signals, after: float) -> None:
    early(tmp_path, number, after)


@pytest.mark.chaos
def test_a_signal_at_any_moment_of_the_start(tmp_path: Path, fault: Count) -> None:
    agents, moments = [], 16
    for moment in range(moments):
        number = signal.SIGTERM if moment % 4 == 3 else signal.SIGINT
        agents += early(tmp_path / str(moment), number, 0.02 + 0.35 * moment)
    _, alive = psutil.wait_procs(agents, timeout=90)
    assert not alive
    fault("a signal at a moment of the start", moments)
