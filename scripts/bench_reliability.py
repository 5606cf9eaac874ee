"""Measures what reliability costs: of a report, a state, a search, and the resume of a long search.

    python scripts/bench_reliability.py

Prints, each with its bound:

report   the driver's work for one evaluation: curve, ledger with fsync, record, study, watchdog (5 ms)
state    one state of the embedded example's trial on disk, and the share of the trial's time that states take (2%)
search   the share of the time of a search of the embedded example that the driver spends in its trial manager (2%)
resume   of a search of 1,000 trials: seconds to the first step of its next trial, less those of a new search (15 s)
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.config import load_experiment
from tuner.contract import Assignment
from tuner.driver import trial_manager as manager
from tuner.driver.session import run_search
from tuner.results.ledger import Event, Kind, read_ledger

ROOT = Path(__file__).resolve().parents[1]
os.environ["TUNER_ALLOW_MODULES"] = "tests.programs.toy"
TOY = "tests.programs.toy:Toy"
SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}
ENTRIES = ("suggest", "lost", "known", "set_up", "evaluated", "ended", "tick", "hanging", "over")


@contextmanager
def timed(spent: dict[str, list[float]]) -> Iterator[None]:
    """Within it, every call into the trial manager is timed; calls within a call count once.

    spent: gets the seconds of each call, by method.
    """
    kept = {name: manager.TrialManager.__dict__[name] for name in ENTRIES}
    depth = 0

    def around(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def entry(*arguments: Any, **more: Any) -> Any:
            nonlocal depth
            depth += 1
            began = time.perf_counter()
            try:
                return method(*arguments, **more)
            finally:
                depth -= 1
                if not depth:
                    spent.setdefault(name, []).append(time.perf_counter() - began)

        return entry

    for name, method in kept.items():
        made: Any = property(around(name, method.fget)) if isinstance(method, property) else around(name, method)
        setattr(manager.TrialManager, name, made)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(manager.TrialManager, name, method)


def bench_report(folder: Path) -> str:
    """Runs a toy search, which has many reports and no work between them."""
    spent: dict[str, list[float]] = {}
    flags = {"run.program": TOY, "run.name": "reports", "run.storage_path": str(folder), "search.space": SPACE}
    flags |= {"search.num_trials": 60, "search.sampler": "random", "scheduler.kind": "none"}
    with timed(spent):
        run_search(load_experiment(None, (), flags))
    reports = len(spent["evaluated"])
    around = [sum(spent.get(name, [])) for name in ("evaluated", "known", "hanging", "over")]
    return f"report   {1000 * sum(around) / reports:6.2f} ms each, of {reports} (5 ms)"


def bench_search(folder: Path) -> str:
    """Runs a search of the embedded example with the trial manager timed."""
    spent: dict[str, list[float]] = {}
    flags = {"run.name": "search", "run.storage_path": str(folder), "search.num_trials": 8}
    began = time.perf_counter()
    with timed(spent):
        run_search(load_experiment(None, (), flags))
    wall, own = time.perf_counter() - began, sum(map(sum, spent.values()))
    return f"search   {own:6.2f} s of {wall:.1f} s on the driver's trial manager, {own / wall:.2%} (2%)"


def bench_state(folder: Path) -> str:
    """Runs a trial of the embedded example with the saves of its states timed."""
    from trainables import states
    from trainables.sft import SFT

    experiment = load_experiment(None, (), {"train.max_steps": 300})
    settings = experiment.settings.model_dump(mode="json")
    program = SFT(settings, SFT.prepare(settings, folder / "data"))
    cost: list[float] = []
    save = states.save

    def timed_save(*arguments: Any) -> Path:
        began = time.perf_counter()
        path = save(*arguments)
        cost.append(time.perf_counter() - began)
        return path

    states.save = timed_save
    place = folder / "trial"
    place.mkdir()
    program.start(Assignment(0, {}, 7, tuple(n / 100 for n in range(1, 101)), str(place)))
    began, evaluation = time.perf_counter(), program.step()
    while not evaluation.done:
        evaluation = program.step()
    wall = time.perf_counter() - began
    program.stop()
    states.save = save
    size = (place / "state" / "state.safetensors").stat().st_size
    each = sum(cost) / max(1, len(cost))
    return (
        f"state    {1000 * each:6.1f} ms each, {size / 1e6:.1f} MB, {len(cost)} in {wall:.1f} s: "
        f"{sum(cost) / wall:.2%} of the trial (2%)"
    )


def bench_resume(folder: Path) -> str:
    """Begins a new search, and resumes one whose ledger has 1,000 trials."""
    fresh = first_step(folder, "--name", "fresh", name="fresh", trials=1)
    first_step(folder, "--name", "long", name="long", trials=1)
    lengthen(folder / "long" / "trials.jsonl", 1000)
    resumed = first_step(folder, "--resume", "long", "--num-trials", "1001", name="long", number=1000)
    return (
        f"resume   {resumed:6.1f} s to the first step after 1,000 trials, {resumed - fresh:.1f} s more than new (15 s)"
    )


def first_step(folder: Path, *arguments: str, name: str, trials: int = 0, number: int = 0) -> float:
    """Seconds from the command to the first evaluation of trial `number`; waits for the search to end."""
    file = folder / "toy.yaml"
    file.write_text(json.dumps({"search": {"num_trials": trials or 1, "space": SPACE}, "run": {"program": TOY}}))
    given = [] if "--resume" in arguments else [str(file)]
    began = time.time()
    command = [sys.executable, "-m", "tuner", "search", *given, *arguments, "--storage-path", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    events = read_ledger(folder / name / "trials.jsonl")
    return next(e.time for e in events if e.event is Kind.EVALUATION and e.number == number) - began


def lengthen(path: Path, trials: int) -> None:
    """Makes a ledger of one trial one of `trials`, each with another number and learning rate."""
    events = [event for event in read_ledger(path) if event.number == 0]
    with path.open("a", encoding="utf-8") as file:
        for number in range(1, trials):
            for event in events:
                values = {key: value for key, value in vars(event).items() if key not in ("event", "time")}
                values |= {"number": number, "trial": f"t{number}"}
                if event.event is Kind.STARTED:
                    values["params"] = {"learning_rate": 10 ** (-5 + 5 * number / trials)}
                file.write(Event(event.event, event.time, **values).to_json() + "\n")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(ROOT)  # the workers inherit it
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for bench in (bench_report, bench_search, bench_state, bench_resume):
            place = Path(scratch, bench.__name__)
            place.mkdir()
            print(bench(place), flush=True)
