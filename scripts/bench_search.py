"""Replays searches over tables of learning curves: what a sampler and a scheduler find, and for how many tokens.

    python scripts/bench_search.py --seeds 30 --processes 16 --json replay.json       # 5 minutes on 16 cores
    python scripts/bench_search.py --curves scripts/curves/functions.npz --seeds 2 --peers rungs,tpe --workers 8

The tables are made by `make_curves.py`. A replay runs tuner's own study, sampler, ladder and judge, in simulated time:
a trial takes as long as it has tokens, `--workers` trials run at a time, and each evaluation is reported when it would
have been. A table becomes a loss for every point of the space in two ways:

nearest  the curve of the nearest point of the table, in a distance that a leave-one-out search has chosen
smooth   a local linear fit to the curves of the 30 nearest points, and the noise between seeds that the table has

A search's answer is the trial with the best loss so far; its regret is how far the true loss of that trial lies above
the best of the surface, in percent. `best64` is the median loss of the best of 64 random trials that run to the end.
Peers share seeds. Those of Optuna and of Ray Tune are run by their own samplers and rules; trial 0 of tuner is the
recipe, which theirs do not know.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy: each search has one core

import numpy  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from search_peers import PEERS, Peer  # noqa: E402
from search_surfaces import FULL, WORST, Array, Surface, Table, make_surface  # noqa: E402

SHARES = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Of the tokens of 64 full trials: where regret is measured. A search ends at the last."""


@dataclass
class Outcome:
    """What one search came to."""

    regret: dict[str, float] = field(default_factory=dict)
    """Percent, by share of the tokens of 64 full trials."""
    reached: float | None = None
    """The share of those tokens at which the loss of `best64` was reached."""
    trials: int = 0
    spent: float = 0.0
    """The share of those tokens that was spent."""
    lost: bool = False
    """Whether the best point that was sampled was stopped early, and would have been the answer."""
    suggestion_ms: float = 0.0
    """CPU milliseconds of a suggestion, the median."""


def replay(peer: type[Peer], surface: Surface, seed: int, workers: int, trials: int | None) -> Outcome:
    """Runs one search. trials: how many; None: as many as `SHARES` leave tokens for."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = peer(surface, seed, trials or 150, Path(folder))
        return _replay(found, surface, seed, workers, trials)


def _replay(peer: Peer, surface: Surface, seed: int, workers: int, trials: int | None) -> Outcome:
    table, outcome = surface.table, Outcome()
    whole = FULL * table.full_tokens
    limit = math.inf if trials else SHARES[-1] * whole
    clock, spent = 0.0, 0.0
    events: list[tuple[float, int, int]] = []
    curves: dict[int, tuple[Array, float, float]] = {}
    answer: tuple[float, float] | None = None  # observed loss, true loss
    history: list[tuple[float, float]] = []
    stopped: set[int] = set()
    started, over = 0, False

    def begin() -> None:
        nonlocal started, over
        while len(events) < workers and not over and (trials is None or started < trials):
            before = time.process_time()
            asked = peer.ask()
            peer.seconds.append(time.process_time() - before)
            if asked is None:
                over = True
                return
            number, params = asked
            started += 1
            curve = surface.curve(params)
            curves[number] = curve, surface.noise(seed, number), table.tokens_of[params["effective_batch_size"]]
            share = peer.evaluate_at[0] / table.budget
            heapq.heappush(events, (clock + share * curves[number][2], number, 0))

    begin()
    while events:
        clock, number, index = heapq.heappop(events)
        curve, factor, tokens = curves[number]
        step = peer.evaluate_at[index]
        spent += tokens * (step - (peer.evaluate_at[index - 1] if index else 0)) / table.budget
        if spent > limit:
            break
        true = float(numpy.interp(step, table.steps, curve))
        loss = true * factor if true < WORST else true
        if loss < WORST and (answer is None or loss < answer[0]):
            answer = loss, true
            history.append((spent / whole, true))
        done = step >= table.budget
        if peer.report(number, step, loss, done):
            ahead = tokens * (peer.evaluate_at[index + 1] - step) / table.budget
            heapq.heappush(events, (clock + ahead, number, index + 1))
        elif not done:
            stopped.add(number)
        begin()
    for share in SHARES:
        best = [true for at, true in history if at <= share]
        outcome.regret[f"{share:g}"] = 100 * (best[-1] / surface.best - 1) if best else math.nan
    outcome.regret["end"] = 100 * (history[-1][1] / surface.best - 1) if history else math.nan
    outcome.reached = next((at for at, true in history if true <= surface.best64), None)
    outcome.trials, outcome.spent = started, min(spent, limit) / whole
    best = min(curves, key=lambda n: float(curves[n][0].min()))
    outcome.lost = best in stopped and float(curves[best][0].min()) < 0.999 * history[-1][1]
    outcome.suggestion_ms = 1000 * float(numpy.median(peer.seconds))
    return outcome


@cache
def _surface(path: Path, kind: str) -> Surface:
    return make_surface(_table(path), kind)


@cache
def _table(path: Path) -> Table:
    return Table(path)


def job(path: Path, kind: str, name: str, seed: int, workers: int, trials: int | None) -> Outcome:
    """One search, in a process of a pool."""
    return replay(PEERS[name], _surface(path, kind), seed, workers, trials)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """What the searches of one peer came to."""
    keys = outcomes[0].regret
    reached = [math.inf if o.reached is None else o.reached for o in outcomes]
    within = {f"{share:g}": sum(at <= share for at in reached) / len(reached) for share in SHARES}
    median = float(numpy.median(reached))
    means = {key: float(numpy.nanmean([o.regret[key] for o in outcomes])) for key in keys}
    spread = {key: float(numpy.nanstd([o.regret[key] for o in outcomes]) / math.sqrt(len(outcomes))) for key in keys}
    return {
        "searches": len(outcomes),
        "regret": {key: round(value, 3) for key, value in means.items()},
        "regret_error": {key: round(value, 3) for key, value in spread.items()},
        "reached_best64": {key: round(value, 3) for key, value in within.items()},
        "median_tokens_to_best64": round(median, 3) if math.isfinite(median) else None,
        "trials": round(float(numpy.mean([o.trials for o in outcomes])), 1),
        "spent": round(float(numpy.mean([o.spent for o in outcomes])), 3),
        "best_lost": round(sum(o.lost for o in outcomes) / len(outcomes), 3),
        "suggestion_ms": round(float(numpy.median([o.suggestion_ms for o in outcomes])), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    tables = sorted((ROOT / "scripts" / "curves").glob("*.npz"))
    parser.add_argument("--curves", type=Path, nargs="+", default=tables, help="tables of make_curves.py")
    parser.add_argument("--surfaces", default="nearest,smooth")
    parser.add_argument("--peers", default=",".join(PEERS), help="of: " + ", ".join(PEERS))
    parser.add_argument("--workers", default="1,8", help="trials at a time")
    parser.add_argument("--trials", type=int, default=None, help="of a search; none: as many as the tokens allow")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    names, seeds = arguments.peers.split(","), range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    cells = [
        (path, kind, int(workers), name)
        for path in arguments.curves
        for kind in arguments.surfaces.split(",")
        for workers in arguments.workers.split(",")
        for name in names
    ]
    found: dict[str, Any] = {"surfaces": {}, "cells": []}
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("fork")) as pool:
        for path in arguments.curves:
            for kind in arguments.surfaces.split(","):
                surface = _surface(path, kind)  # in the parent, before the processes are forked
                found["surfaces"][f"{path.stem}/{kind}"] = {
                    "points": len(surface.table.points), "best": round(surface.best, 4),
                    "best64": round(surface.best64, 4), "noise_percent": round(100 * surface.table.noise, 3),
                    "median_error_percent": surface.table.fidelity[kind],
                }  # fmt: skip
                print(path.stem, kind, found["surfaces"][f"{path.stem}/{kind}"], flush=True)
        futures = {
            cell: [pool.submit(job, cell[0], cell[1], cell[3], seed, cell[2], arguments.trials) for seed in seeds]
            for cell in cells
        }
        for (path, kind, workers, name), ours in futures.items():
            cell = {"task": path.stem, "surface": kind, "workers": workers, "peer": name,
                    **summary([future.result() for future in ours])}  # fmt: skip
            found["cells"].append(cell)
            regret = " ".join(f"{share}:{value:6.3f}" for share, value in cell["regret"].items())
            print(f"{path.stem:11}{kind:8}{workers:2} {name:21}{regret}  reached {cell['reached_best64']['0.3']:.0%} "
                  f"median {cell['median_tokens_to_best64']} trials {cell['trials']} lost {cell['best_lost']:.0%} "
                  f"{cell['suggestion_ms']} ms", flush=True)  # fmt: skip
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
