"""Tables of learning curves (`make_curves.py`) as a loss for every point of their space, for `bench_search.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from make_curves import draw, space

Array = numpy.ndarray
FULL = 64
"""Full trials that a search is compared with."""
NEIGHBOURS = 30
"""Points that a local fit takes."""
WORST = 1e3
"""The loss that stands for one that is not finite."""


class Table:
    """Learning curves of one task, and the two surfaces made of them."""

    def __init__(self, path: Path) -> None:
        from tuner.study.rungs.encoding import Encoding

        self.name, self.space = path.stem, space()
        with numpy.load(path) as stored:
            data = {name: stored[name] for name in stored}
        self.steps = data["steps"].astype(int)
        self.budget = int(self.steps[-1])
        points = [json.loads(text) for text in data["params"].tolist()]
        first = data["seed"] == 0
        of_point = dict(zip(data["point"][first].tolist(), numpy.flatnonzero(first).tolist(), strict=True))
        self.points = [points[point] for point in of_point]
        losses = numpy.where(numpy.isfinite(data["losses"]), data["losses"], WORST).astype(float)
        self.curves = losses[list(of_point.values())]
        self.tokens_of = {
            size: float(numpy.mean([data["tokens"][row] for point, row in of_point.items()
                                    if points[point]["effective_batch_size"] == size]))
            for size in {point["effective_batch_size"] for point in self.points}
        }  # fmt: skip
        """Tokens of a whole trial, by batch size."""
        self.full_tokens = float(numpy.mean([self.tokens_of[p["effective_batch_size"]] for p in self.points]))
        self.noise = _noise(data["point"], losses[:, -1])
        """The standard deviation between seeds of one point, as a share of the loss, over the better half."""
        self._encoding = Encoding(_distributions(self.space))
        self._rows = numpy.array([self._encoding.encode(point) for point in self.points])
        self.weights, self.fidelity = self._fitted()

    def distances(self, row: Array) -> Array:
        """Squared distances [points] from a configuration [parameters]."""
        apart = (self._rows - row) ** 2
        unlike = ~self._encoding.ordered
        apart[:, unlike] = apart[:, unlike] != 0
        apart[(self._rows < 0) != (row < 0)] = 1.0
        return apart @ self.weights

    def nearest(self, params: Mapping[str, Any]) -> Array:
        """The curve [evaluations] of the nearest point."""
        return self.curves[int(self.distances(self._encoding.encode(params)).argmin())]

    def smooth(self, params: Mapping[str, Any]) -> Array:
        """The curve [evaluations] by a local linear fit."""
        return self._local(self._encoding.encode(params), None)

    def _local(self, row: Array, left_out: int | None) -> Array:
        apart = self.distances(row)
        if left_out is not None:
            apart[left_out] = math.inf
        near = numpy.argpartition(apart, NEIGHBOURS)[:NEIGHBOURS]
        weight = numpy.maximum(1 - apart[near] / (apart[near].max() * 1.01), 1e-3) ** 2
        inputs = numpy.concatenate(
            [numpy.ones((NEIGHBOURS, 1)), (self._rows[near] - row) * numpy.sqrt(self.weights)], 1
        )
        inputs[:, 1:][:, ~self._encoding.ordered] = 0.0
        targets = numpy.log(self.curves[near])
        ridge = numpy.eye(inputs.shape[1]) * 0.05 * weight.sum()
        ridge[0, 0] = 1e-9
        solved = numpy.linalg.solve(
            inputs.T @ (inputs * weight[:, None]) + ridge, inputs.T @ (targets * weight[:, None])
        )
        low, high = targets.min(0), targets.max(0)
        return numpy.exp(numpy.clip(solved[0], low - 0.01, high))

    def _fitted(self) -> tuple[Array, dict[str, float]]:
        """The weight of each parameter in the distance, and how well the surfaces foretell a curve that is left out."""
        final = numpy.minimum(numpy.log(self.curves[:, -1]), numpy.quantile(numpy.log(self.curves[:, -1]), 0.75))
        apart = (self._rows[:, None] - self._rows[None]) ** 2
        unlike = ~self._encoding.ordered
        apart[:, :, unlike] = apart[:, :, unlike] != 0
        apart[(self._rows[:, None] < 0) != (self._rows[None] < 0)] = 1.0
        weights = numpy.ones(self._rows.shape[1])

        def error(weights: Array) -> float:
            total = apart @ weights
            numpy.fill_diagonal(total, numpy.inf)
            near = numpy.argpartition(total, 3, axis=1)[:, :3]
            return float(numpy.mean((final[near].mean(1) - final) ** 2))

        best = error(weights)
        for factor in (8.0, 3.0, 1.7):
            for index in (*range(len(weights)), *range(len(weights))):
                for by in (factor, 1 / factor):
                    tried = weights.copy()
                    tried[index] *= by
                    if (found := error(tried)) < best:
                        weights, best = tried, found
        self.weights = weights
        good = self.curves[:, -1] <= numpy.quantile(self.curves[:, -1], 0.5)
        smooth = numpy.array([self._local(row, index)[-1] for index, row in enumerate(self._rows)])
        left = numpy.array([self.distances(row) + numpy.where(numpy.arange(len(self._rows)) == i, numpy.inf, 0)
                            for i, row in enumerate(self._rows)]).argmin(1)  # fmt: skip
        true = self.curves[:, -1]
        return weights, {
            name: round(float(numpy.median(numpy.abs(found[good] / true[good] - 1))) * 100, 3)
            for name, found in (("nearest", true[left]), ("smooth", smooth))
        }


@dataclass
class Surface:
    """A loss for every point of the space."""

    table: Table
    kind: str
    best: float
    """The lowest loss of a whole trial, without noise."""
    best64: float

    def curve(self, params: Mapping[str, Any]) -> Array:
        """[evaluations] without noise."""
        return self.table.nearest(params) if self.kind == "nearest" else self.table.smooth(params)

    def noise(self, seed: int, number: int) -> float:
        """The factor that a trial's seed has on its losses."""
        if self.kind == "nearest":
            return 1.0  # the curves have it already
        return 1 + self.table.noise * float(numpy.random.default_rng([seed, number]).normal())


def _noise(point: Array, final: Array) -> float:
    spreads = []
    for index in numpy.unique(point):
        seen = final[point == index]
        if len(seen) > 1 and seen.max() < WORST:
            spreads.append((float(seen.mean()), float(seen.std(ddof=1) / seen.mean())))
    spreads.sort()
    half = [spread for _, spread in spreads[: max(1, len(spreads) // 2)]]
    return float(numpy.sqrt(numpy.mean(numpy.square(half)))) if half else 0.002


def _distributions(space: Any) -> dict[str, Any]:
    from tuner.study.samplers import distributions

    return distributions(space)


def make_surface(table: Table, kind: str) -> Surface:
    """The surface, with its best loss: over all points of the table, and for `smooth` around the best of them too."""
    from random import Random

    surface = Surface(table, kind, math.inf, math.inf)
    chance = Random(1)
    drawn = [float(surface.curve(draw(table.space, chance)).min()) for _ in range(4000)]
    groups = numpy.random.default_rng(0).choice(drawn, (2000, FULL))
    surface.best64 = float(numpy.median(groups.min(1)))
    surface.best = min(*drawn, *(float(surface.curve(point).min()) for point in table.points))
    return surface
