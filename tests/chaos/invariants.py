"""Checks what must hold of a run folder whatever fault happened to the search.

1. The ledger can be read, and every line of it belongs to a trial that had been started, in that attempt.
2. Trials are numbered from 0 without a gap, each started once an attempt, attempts counted from 1.
3. A trial has at most one ending, and nothing of it follows; with the search over, it has exactly one.
4. The last evaluation of a parked trial says that it is parked; its next attempt or its ending follows.
5. No evaluation is written twice: over the attempts that count for a trial, steps rise.
6. Nothing that was reported is lost: what was on disk before a fault is a prefix of what is there after it.
7. The study says of each trial what the ledger says.
8. `status` says what the ledger says.
9. The best loss is finite, and its adapter is there and complete.
10. The exit code is the one for how the trials ended.
11. No process of the search is left.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors import safe_open

from tuner.contract import Reason, Status
from tuner.results.ledger import Event, Kind, read_ledger
from tuner.results.records import SearchRecord, TrialRecord

ROOT = Path(__file__).resolve().parents[2]


def check(
    folder: Path,
    *,
    num_trials: int,
    exit_code: int | None = None,
    family: Iterable[psutil.Process] = (),
    status: bool = True,
) -> SearchRecord:
    """Checks all of the above for a search that is over, and gives its record.

    exit_code: of the driver; None: not checked. family: the processes of the search while it ran. status: also checks
    8, by the command in a process of its own.
    """
    record = check_ledger(folder)
    assert sorted(record.trials) == list(range(num_trials)), "numbers 0 to N-1, once each"
    unended = [n for n, t in record.trials.items() if not t.has_ended]
    assert not unended, f"without an ending: {unended}"
    check_study(folder, record)
    check_best(folder, record)
    if status:
        check_status(folder, record)
    if exit_code is not None:
        assert exit_code == expected_exit(record), f"exit code {exit_code}, and {record.counts}"
    check_processes(family)
    return record


def check_ledger(folder: Path) -> SearchRecord:
    """Checks 1 to 5, also for a search that was cut off; gives the record."""
    events = list(read_ledger(folder / "trials.jsonl"))
    attempts: dict[int, int] = {}
    ended: dict[int, int] = {}
    parked: set[int] = set()
    to_park: dict[int, bool] = {}
    for line, event in enumerate(events, 1):
        if event.number is None:
            continue
        where = f"line {line}: {event.event} of trial {event.number}, attempt {event.attempt}"
        if event.event is Kind.STARTED:
            assert event.attempt == attempts.get(event.number, 0) + 1, where
            assert event.number == len(attempts) or event.number in attempts, where
            attempts[event.number] = event.attempt
            parked.discard(event.number)
        assert attempts.get(event.number) == event.attempt, where
        assert event.number not in ended, f"{where}, after its ending in line {ended.get(event.number)}"
        assert event.number not in parked or event.event is Kind.ENDED, f"{where}, which is parked"
        if event.event is Kind.EVALUATION:
            to_park[event.number] = event.details.get("parked") is True
        if event.event is Kind.PARKED:
            assert to_park.get(event.number), f"{where}, and its last evaluation does not say so"
            parked.add(event.number)
        if event.event is Kind.ENDED:
            ended[event.number] = line
    record = SearchRecord.fold(events)
    for trial in record.trials.values():
        steps = [point.step for point in trial.points]
        assert steps == sorted(set(steps)), f"trial {trial.number} was measured at {steps}"
    assert len(record.ended) == len(ended)
    assert {trial.number for trial in record.parked} == parked - ended.keys()
    return record


def check_kept(before: list[Event], after: list[Event]) -> None:
    """Checks 6. before: the events that were read before a fault."""
    assert after[: len(before)] == before, "the ledger was changed"


def study_of(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    (name,) = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
    return optuna.load_study(study_name=name, storage=storage)


def check_study(folder: Path, record: SearchRecord) -> None:
    """Checks 7."""
    trials = study_of(folder).trials
    assert [t.number for t in trials] == sorted(record.trials)
    for theirs in trials:
        mine = record.trials[theirs.number]
        assert theirs.state.name == told(mine), f"trial {theirs.number} is {theirs.state.name}, and {mine.ending}"
        if theirs.state.name == "COMPLETE":
            assert theirs.value == mine.best_value
        assert all(math.isfinite(value) for value in theirs.intermediate_values.values())


def told(trial: TrialRecord) -> str:
    """The state that Optuna is told for an ending."""
    if trial.status is Status.PRUNED or trial.reason is Reason.OUT_OF_MEMORY:
        return "PRUNED"
    return "COMPLETE" if trial.status is Status.COMPLETED else "FAIL"


def check_status(folder: Path, record: SearchRecord) -> None:
    """Checks 8."""
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "status", str(folder), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["counts"] == record.counts
    best = record.best
    assert (answer["best"] or {}).get("trial") == (best.number if best else None)


def check_best(folder: Path, record: SearchRecord) -> None:
    """Checks 9."""
    best = record.best
    if best is None:
        assert not (folder / "best" / "manifest.json").exists()
        return
    assert best.best_value is not None and math.isfinite(best.best_value)
    manifest = json.loads((folder / "best" / "manifest.json").read_text())
    assert (manifest["trial"], manifest["eval_loss"]) == (best.number, best.best_value)
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / "best" / name).read_bytes()).hexdigest() == digest, name
    weights = folder / "best" / "adapter_model.safetensors"
    if weights.exists():
        with safe_open(str(weights), framework="numpy") as file:
            assert all(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    else:
        assert json.loads((folder / "best" / "adapter.json").read_text())["loss"] == best.best_value
    # `beside` is where the second process of tests/programs/crew.py has its own files
    states = [p for p in (folder / "adapters").glob("**/state/*") if "beside" not in p.parts]
    assert not states, f"of trials that have ended: {states}"


def expected_exit(record: SearchRecord) -> int:
    """The exit code of 10, for a search that no signal ended."""
    if record.halt_reason or record.best is None:
        return 1
    return 3 if any(t.status is Status.FAILED for t in record.ended) else 0


_LATER: set[psutil.Process] = set()


def check_processes(family: Iterable[psutil.Process], within: float = 60) -> None:
    """Checks 11. family: the processes of the search while it ran. within: seconds.

    Ray's two agents outlive a killed raylet by up to a minute, trying to report its death, and a Ray that goes on keeps
    workers that have nothing to do: `check_processes_later` checks them.
    """
    agents = {process for process in family if any(word in name_of(process) for word in ("Agent", "ray::IDLE"))}
    _LATER.update(agents)
    _require_gone(set(family) - agents, within)


def check_processes_later() -> None:
    """Checks that Ray's agents, which `check_processes` leaves out, are gone too."""
    _require_gone(_LATER, 120)
    _LATER.clear()


def name_of(process: psutil.Process) -> str:
    """The name and the command line of a process, which Ray changes; "" once it is gone."""
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


def _require_gone(processes: Iterable[psutil.Process], within: float) -> None:
    _, alive = psutil.wait_procs(list(processes), timeout=within)
    assert not alive, f"left behind: {[name_of(process) for process in alive]}"


def endings(record: SearchRecord) -> Counter[str]:
    return Counter(str(t.reason) for t in record.ended)
