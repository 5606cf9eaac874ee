"""Makes tables of learning curves: LoRA trials of the embedded base, packed, each to the end of its budget.

    python scripts/make_curves.py --minutes 9 --out curves            # on a GPU: three tasks, 600 points each
    python scripts/make_curves.py --configurations 4 --tasks docstrings --processes 1 --slots 4 --out /tmp/curves

`bench_search.py` replays searches over these tables. Every point is drawn at random from `SPACE`, trained by the packed
engine over the rows of one task, and evaluated at `POINTS`. A tenth of the points is trained with three seeds, which
measures the noise between seeds. Several processes share a GPU, because one cannot keep it busy with a base this small.

Writes `TASK.npz` for each task:

params   [points] text: the values of each point as JSON; a parameter is absent where its condition does not hold
point    [trials] int32: the point of each trial
seed     [trials] int32
steps    [evaluations] int32: the optimizer steps after which each trial was evaluated
losses   [trials, evaluations] float32: validation losses; NaN from where a trial has failed
tokens   [trials] int64: tokens that a whole trial trains on
seconds  [] float32: how long all of it took
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "tuner" / "demo"
sys.path[:0] = [str(ROOT)]

STEPS = 100
"""Optimizer steps of a trial."""
POINTS = (2, 3, 4, 6, 8, 10, 12, 15, 18, 20, 24, 27, 30, 36, 40, 45, 50, 54, 60, 64, 70, 75, 80, 85, 90, 95, 100)
"""Steps of a hundred after which a trial is evaluated: the rungs of usual ladders, and a regular pace."""
REPEATED = 10
"""One point in so many is trained with three seeds."""
SEEDS = 3
ROWS_A_STEP = 16
"""Rows of a micro-batch at most, so that no trial accumulates and all of a wave advance together."""

SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": {"type": "float", "low": 1.0e-4, "high": 3.0e-2, "log": True},
    "lora_r": {"type": "choice", "values": [2, 4, 8, 16, 32, 64]},
    "lora_alpha_mode": {"type": "choice", "values": ["fixed", "2r", "rslora"]},
    "effective_batch_size": {"type": "choice", "values": [2, 4, 8, 16]},
    "lr_scheduler_type": {"type": "choice", "values": ["linear", "cosine", "constant_with_warmup"]},
    "warmup_ratio": {"type": "float", "low": 0.0, "high": 0.03, "when": {"lr_scheduler_type": ["linear", "cosine"]}},
    "target_modules": {"type": "choice", "values": ["all-linear", "attention", "mlp"]},
    "max_grad_norm": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
}
"""The space of all tables, as a search file writes it. The warm-up stays short, because the first rung lies at twice
the longest one."""


@dataclass(frozen=True)
class Task:
    """What a table's trials learn."""

    flipped: bool = False
    """Whether the docstring is the prompt and the function the completion."""
    rows: int | None = None
    """Training rows; None for all 1,443."""


TASKS = {"docstrings": Task(), "functions": Task(flipped=True), "few": Task(rows=120)}
"""`functions` is the task that nothing is tuned on."""


@dataclass(frozen=True)
class Job:
    """A trial to train."""

    point: int
    seed: int
    params: dict[str, Any]


def space() -> Any:
    """`SPACE` as tuner's own space."""
    from tuner.space.parameters import KINDS
    from tuner.space.space import Space

    return Space("curves", {name: KINDS[spec["type"]].model_validate(spec) for name, spec in SPACE.items()})


def draw(space: Any, chance: random.Random) -> dict[str, Any]:
    """Draws a point of a space, each parameter independently, where its conditions hold."""
    point: dict[str, Any] = {}
    for name in space.order:
        parameter = space.parameters[name]
        if not parameter.active(point):
            continue
        if parameter.type == "choice":
            point[name] = chance.choice(parameter.options)
            continue
        low, high = (math.log(end) if parameter.log else end for end in (parameter.low, parameter.high))
        value = chance.uniform(low, high)
        value = math.exp(value) if parameter.log else value
        point[name] = round(value) if parameter.type == "int" else float(f"{value:.4g}")
    return point


def jobs_of(configurations: int) -> list[Job]:
    """The trials of a table, in the order in which they are trained: those with several seeds first, so that a run that
    is cut off has measured the noise."""
    own, chance = space(), random.Random(0)
    points = [draw(own, chance) for _ in range(configurations)]
    repeated = math.ceil(configurations / REPEATED)
    jobs = [Job(point, seed, params) for point, params in enumerate(points[:repeated]) for seed in range(SEEDS)]
    return jobs + [Job(point, 0, params) for point, params in enumerate(points) if point >= repeated]


def rows_of(task: Task, folder: Path) -> dict[str, str]:
    """Writes the rows of a task; gives the paths of both sets."""
    paths = {}
    for name in ("train", "validation"):
        rows = [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text("utf-8").splitlines()]
        if task.flipped:
            rows = [
                {"prompt": row["completion"] + "\n", "completion": row["prompt"].removesuffix('"""')} for row in rows
            ]
        if name == "train" and task.rows is not None:
            rows = random.Random(0).sample(rows, task.rows)
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        paths[name] = str(path)
    return paths


def settings_of(paths: dict[str, str], steps: int) -> dict[str, Any]:
    """Settings of the SFT program: the recipe of the embedded search, one micro-batch a step."""
    return {
        "model": {"model_name_or_path": str(DEMO / "base"), "dtype": "float32"},
        "data": {**paths, "max_length": 128},
        "train": {
            "max_steps": steps,
            "learning_rate": 3e-4,
            "effective_batch_size": 4,
            "per_device_train_batch_size": ROWS_A_STEP,
            "per_device_eval_batch_size": 16,
            "warmup_ratio": 0.03,
            "lora_r": 8,
            "lora_alpha": 8,
        },
    }


def make_engine(settings: dict[str, Any], cache: Path, slots: int) -> Any:
    """A packed engine that keeps losses in memory: it writes no adapter and no state, and waits for no verdict."""
    from trainables import imports, runtime
    from trainables.sft import SFT

    with imports.heavy():
        from trainables.packed.engine import Engine

    class CurveEngine(Engine):
        """`curves`: by slot, the losses of the trial in it."""

        curves: dict[int, list[float]]

        def _evaluate(self, due: Sequence[Any]) -> list[Any]:
            self._model.eval()
            for trial in due:
                trial.draw_loader_seed()
            losses = self.evaluator.losses([trial.slot for trial in due])
            for trial, loss in zip(due, losses, strict=True):
                self.curves.setdefault(trial.slot, []).append(math.nan if loss is None else loss)
                trial.evaluated(loss)
                trial.confirm()
            return []

    preparation = SFT.prepare(settings, cache)
    return CurveEngine(runtime.validated(settings), preparation, slots)


def next_wave(queue: list[Job], slots: int) -> list[Job]:
    """Takes up to `slots` jobs with one batch size out of the queue, so that the passes of a wave have few shapes."""
    size = queue[0].params["effective_batch_size"]
    wave = [job for job in queue[: 8 * slots] if job.params["effective_batch_size"] == size][:slots]
    for job in wave:
        queue.remove(job)
    return wave


def train(name: str, share: int, shares: int, arguments: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """Trains one share of a task's jobs until `deadline`, by `time.time`; in a process of its own."""
    from tuner.contract import Assignment, Fault

    begun = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        engine = make_engine(settings_of(rows_of(TASKS[name], folder), arguments.steps), folder / "cache",
                             arguments.slots)  # fmt: skip
        ready = time.time()
        say(f"{name} {share + 1}/{shares}: engine after {ready - begun:.0f} s")
        queue = jobs_of(arguments.configurations)[share::shares]
        found: list[dict[str, Any]] = []
        waves, longest = 0, 0.0
        while queue and time.time() + 1.1 * longest < deadline:
            start = time.time()
            wave = next_wave(queue, arguments.slots)
            engine.curves = {}
            shares_of_budget = tuple(point / 100 for point in POINTS)
            for slot, job in enumerate(wave):
                place = folder / f"slot-{slot}"
                place.mkdir(exist_ok=True)
                engine.join(slot, Assignment(job.point, job.params, 3 * job.point + job.seed, shares_of_budget,
                                             str(place)))  # fmt: skip
            steps = Assignment(0, {}, 0, shares_of_budget, "").evaluation_steps(arguments.steps)
            while engine.busy:
                for slot, outcome in engine.advance():
                    if isinstance(outcome, Fault):
                        say(f"{name}: {wave[slot].params}: {outcome}")
            for slot, job in enumerate(wave):
                losses = engine.curves.get(slot, [])
                tokens = engine.trials[slot].tokens if engine.trials[slot] is not None else 0
                found.append({
                    "point": job.point, "seed": job.seed, "tokens": tokens,
                    "losses": losses + [math.nan] * (len(steps) - len(losses)),
                })  # fmt: skip
                engine.leave(slot)
            waves, longest = waves + 1, max(longest, time.time() - start)
            say(f"{name} {share + 1}/{shares}: wave {waves}, {len(wave)} trials in {time.time() - start:.1f} s, "
                f"{len(queue)} left")  # fmt: skip
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def save(name: str, found: list[dict[str, Any]], arguments: argparse.Namespace, seconds: float) -> Path:
    """Writes the table of a task."""
    import numpy

    from tuner.contract import Assignment

    found = sorted(found, key=lambda trial: (trial["point"], trial["seed"]))
    params = {job.point: job.params for job in jobs_of(arguments.configurations)}
    trained = sorted({trial["point"] for trial in found})
    place = {point: index for index, point in enumerate(trained)}
    steps = Assignment(0, {}, 0, tuple(point / 100 for point in POINTS), "").evaluation_steps(arguments.steps)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{name}.npz"
    numpy.savez_compressed(
        path,
        params=numpy.array([json.dumps(params[point]) for point in trained]),
        point=numpy.array([place[trial["point"]] for trial in found], numpy.int32),
        seed=numpy.array([trial["seed"] for trial in found], numpy.int32),
        steps=numpy.array(steps, numpy.int32),
        losses=numpy.array([trial["losses"] for trial in found], numpy.float32),
        tokens=numpy.array([trial["tokens"] for trial in found], numpy.int64),
        seconds=numpy.float32(seconds),
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--minutes", type=float, default=60, help="begin no trial that would end later than this")
    parser.add_argument("--configurations", type=int, default=600, help="points of each task")
    parser.add_argument("--tasks", default=",".join(TASKS), help="of: " + ", ".join(TASKS))
    parser.add_argument("--processes", type=int, default=2, help="for each task")
    parser.add_argument("--slots", type=int, default=64, help="trials at a time in a process")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    begun = time.time()
    deadline = begun + 60 * arguments.minutes - 10  # the tables have to be written
    tasks = arguments.tasks.split(",")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    with ProcessPoolExecutor(len(tasks) * arguments.processes, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(train, name, share, arguments.processes, arguments, deadline): name
            for share in range(arguments.processes)
            for name in tasks
        }
        for future in as_completed(futures):
            name = futures[future]
            found[name] += future.result()
            with contextlib.suppress(ValueError):  # nothing of this task yet
                path = save(name, found[name], arguments, time.time() - begun)
                print(f"{path}: {len(found[name])} curves, {path.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
