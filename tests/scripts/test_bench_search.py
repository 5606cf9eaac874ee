"""Replays of searches over tables of learning curves: surfaces, simulated time, the order of what is reported."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
STEPS = numpy.array([6, 10, 18, 20, 30, 40, 50, 54, 60, 70, 80, 90, 100])
NAMES = ("make_curves", "search_surfaces", "search_peers", "bench_search")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("bench_search")
    sys.path.remove(str(SCRIPTS))
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def surface(bench: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table of 80 points whose losses depend on the learning rate, two of them diverged."""
    from make_curves import draw, space

    own, chance = space(), Random(0)
    points = [draw(own, chance) for _ in range(80)]
    off = numpy.array([numpy.log10(point["learning_rate"]) + 2.7 for point in points])
    losses = (1 + 0.2 * off**2)[:, None] + numpy.exp(-STEPS / 30)[None, :]
    losses[:2, 5:] = numpy.nan
    path = tmp_path_factory.mktemp("curves") / "toy.npz"
    numpy.savez_compressed(
        path, params=numpy.array([json.dumps(point) for point in points]), point=numpy.arange(80),
        seed=numpy.zeros(80, int), steps=STEPS, losses=losses.astype(numpy.float32),
        tokens=numpy.array([1000 * point["effective_batch_size"] for point in points]), seconds=numpy.float32(1),
    )  # fmt: skip
    table = bench.Table(path)
    return bench.Surface(table, "nearest", float(table.curves.min()), 1.1)


def test_a_point_of_the_table_has_its_own_curve(bench: ModuleType, surface: Any) -> None:
    table = surface.table
    for index in (5, 40):
        assert (surface.curve(table.points[index]) == table.curves[index]).all()
    rate = list(table._encoding.names).index("learning_rate")
    assert table.weights[rate] == max(table.weights), "the distance has found what the losses depend on"


@pytest.mark.parametrize("peer", ["rungs", "tpe", "random_asha", "optuna_tpe_halving", "ray_tune"])
def test_a_search_comes_closer_within_its_tokens(bench: ModuleType, surface: Any, peer: str) -> None:
    outcome = bench.replay(bench.PEERS[peer], surface, seed=0, workers=4, trials=None)
    assert outcome.spent == pytest.approx(0.3, abs=0.02)
    shares = [outcome.regret[f"{share:g}"] for share in bench.SHARES]
    known = [regret for regret in shares if not numpy.isnan(regret)]
    assert known == sorted(known, reverse=True) and 0 <= known[-1] < 10
    assert outcome.trials >= 15


def test_a_search_of_a_number_of_trials_ends_with_them(bench: ModuleType, surface: Any) -> None:
    outcome = bench.replay(bench.PEERS["rungs"], surface, seed=0, workers=4, trials=16)
    assert outcome.trials == 16
    again = bench.replay(bench.PEERS["rungs"], surface, seed=0, workers=4, trials=16)
    assert again.regret == outcome.regret and again.spent == outcome.spent


def test_the_points_of_a_table_are_drawn_from_its_space(bench: ModuleType) -> None:
    from make_curves import SEEDS, jobs_of, space

    own, jobs = space(), jobs_of(40)
    assert len({(job.point, job.seed) for job in jobs}) == len(jobs) == 40 + 4 * (SEEDS - 1)
    for job in jobs:
        assert all(own.parameters[name].contains(value) for name, value in job.params.items())
        assert ("warmup_ratio" in job.params) == (job.params["lr_scheduler_type"] != "constant_with_warmup")


@pytest.mark.parametrize("task", ["docstrings", "functions", "few"])
def test_the_tables_in_the_repository_are_whole(bench: ModuleType, task: str) -> None:
    path = SCRIPTS / "curves" / f"{task}.npz"
    assert path.stat().st_size < 1_000_000
    with numpy.load(path) as table:
        assert table["losses"].shape == (720, len(table["steps"]))
        assert len(table["params"]) == 600 and int(table["steps"][-1]) == 100
