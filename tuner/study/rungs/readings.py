"""What a study says of each trial, in the form in which the model takes it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from optuna.trial import FrozenTrial, TrialState

from tuner.study.rungs.encoding import Encoding

SPACING = 1.7
"""Readings of a trial that the model is given lie at least this factor of the resource apart: two that are close say
the same, and the cost of a model grows with the cube of the readings."""

WINDOW = 4.0
"""The next reading is looked for within this factor of the resource: rungs lie two to four apart."""

BASELINE = 3
"""Trials at least, where there are as many, whose falls between two steps the usual curve is made of."""

GRID = 40
"""Steps at most that the usual curve is made of."""


@dataclass
class Readings:
    """The readings of a study. Losses are such that lower is better."""

    points: numpy.ndarray
    """[trials, parameters]: configurations, as `Encoding` has them."""
    trial: numpy.ndarray
    """[readings] int: the place of each reading's trial in `points`."""
    resource: numpy.ndarray
    """[readings]: logarithm of the share of the full budget, at most 0."""
    loss: numpy.ndarray
    """[readings]; infinite for a bound: the trial diverged or cannot be trained."""
    runs: numpy.ndarray
    """[trials] bool: whether a trial still runs."""
    progress: numpy.ndarray
    """[readings]: by how much the usual curve still falls from a reading's resource to the full budget."""

    @property
    def finite(self) -> numpy.ndarray:
        """[readings] bool: whether a reading is a loss and no bound."""
        return numpy.isfinite(self.loss)


def read(trials: Sequence[FrozenTrial], encoding: Encoding, *, sign: float, max_resource: float | None) -> Readings:
    """Reads the trials of a study. sign: 1 where lower values are better, -1 where higher ones are. max_resource: the
    full budget; None: the highest step that any trial has reported.

    Failed trials count for nothing, as for every sampler. An intermediate value that is not finite is left out.
    """
    known, points = [], []
    for trial in trials:
        if trial.state in (TrialState.FAIL, TrialState.WAITING) or not (params := trial.params):
            continue
        if (point := encoding.find(params)) is not None:
            known.append(trial)
            points.append(point)
    top = max_resource or max((max(t.intermediate_values, default=0) for t in known), default=0) or 1
    curves = [_curve(trial, top, sign) for trial in known]
    anchors = _anchors(curves, top)
    place, resource, loss = [], [], []
    for index, (trial, curve) in enumerate(zip(known, curves, strict=True)):
        for step, value in _chosen(trial, curve, top, anchors):
            place.append(index)
            resource.append(math.log(max(step, 1e-3 * top) / top))
            loss.append(value)
    return Readings(
        numpy.array(points).reshape(len(known), len(encoding.names)),
        numpy.array(place, int),
        numpy.array(resource, float),
        numpy.array(loss, float),
        numpy.array([t.state is TrialState.RUNNING for t in known], bool),
        _progress(curves, numpy.exp(numpy.array(resource, float)) * top),
    )


def _curve(trial: FrozenTrial, top: float, sign: float) -> dict[float, float]:
    """The losses of a trial by step, without those that are not finite. A value that it ended with is that of the full
    budget: a trial that has converged ends before, and is as good as it gets."""
    curve = {float(s): sign * v for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v) and s > 0}
    if trial.state is TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value):
        curve = {s: v for s, v in curve.items() if s < top} | {top: sign * trial.value}
    return curve


def _anchors(curves: Sequence[Mapping[float, float]], top: float) -> list[float]:
    """The steps, from the full budget down, at which readings are taken: the same for all trials, so that they can be
    compared. Of the steps in a window, the one at which most trials ended: a rung."""
    ends = Counter(max(curve) for curve in curves if curve)
    steps = sorted({s for curve in curves for s in curve if s < top}, reverse=True)
    anchors = [top]
    while below := [s for s in steps if s <= anchors[-1] / SPACING]:
        window = [s for s in below if s >= anchors[-1] / WINDOW] or below[:1]
        anchors.append(max(window, key=lambda s: (ends[s], s)))
    return anchors


def _chosen(
    trial: FrozenTrial, curve: Mapping[float, float], top: float, anchors: Sequence[float]
) -> list[tuple[float, float]]:
    """The readings of a trial that the model is given: at the anchors that it has passed, and the last one."""
    if is_infeasible(trial):
        return [(top, math.inf)]
    last = max(curve, default=0.0)
    wanted = {a for a in anchors if a in curve and a * SPACING <= last * 1.0001} | {last}
    return [(s, curve[s]) for s in sorted(wanted) if s in curve]


def _progress(curves: Sequence[Mapping[float, float]], steps: numpy.ndarray) -> numpy.ndarray:
    """By how much the usual curve falls from each of `steps` to the last step, [steps].

    It is made of the median falls between neighbouring steps, over the better half of the trials that have both. The
    survivors of a rung are better than those before, so a difference of medians would take selection for progress.
    """
    grid = sorted({s for curve in curves for s in curve})
    grid = grid[:: math.ceil(len(grid) / GRID)] if len(grid) > GRID else grid
    if len(grid) < 2:
        return numpy.zeros(len(steps))
    places = numpy.log(grid)
    table = numpy.full((len(curves), len(grid)), numpy.nan)
    for row, curve in zip(table, curves, strict=True):
        if curve:
            row[:] = numpy.interp(places, numpy.log(list(curve)), list(curve.values()), math.nan, math.nan)
    falls = numpy.zeros(len(grid))
    for index in range(len(grid) - 2, -1, -1):
        before, after = table[:, index], table[:, index + 1]
        both = numpy.flatnonzero(numpy.isfinite(before) & numpy.isfinite(after))
        best = both[numpy.argsort(after[both], kind="stable")][: max(BASELINE, (len(both) + 1) // 2)]
        falls[index] = falls[index + 1] + (float(numpy.median(before[best] - after[best])) if len(best) else 0.0)
    return numpy.interp(numpy.log(numpy.maximum(steps, grid[0])), places, falls)


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial diverged or could not be trained: a constraint is violated, it was pruned without a value, or its
    value is not finite."""
    if any(value > 0 for value in trial.constraints.values()):
        return True
    if trial.state is TrialState.PRUNED:
        return not any(math.isfinite(v) for v in trial.intermediate_values.values())
    return trial.state is TrialState.COMPLETE and (trial.value is None or not math.isfinite(trial.value))


def flattened(readings: Readings) -> numpy.ndarray:
    """[readings]: each loss as the loss at the full budget that a usual curve would lead to, standardized; a bound
    becomes the worst of all. Losses above the median are compressed: how bad a bad one is says little about where the
    best lies."""
    return _compressed(readings.loss - readings.progress, readings.finite)


def _compressed(loss: numpy.ndarray, finite: numpy.ndarray) -> numpy.ndarray:
    """Losses [n] with mean 0 and deviation 1 over those that are finite; above the median they grow by their
    logarithm."""
    if not finite.any():
        return numpy.zeros(len(loss))
    middle = float(numpy.median(loss[finite]))
    below = middle - loss[finite & (loss <= middle)]
    spread = max(float(numpy.sqrt(numpy.mean(below**2))), 1e-12 * max(1.0, abs(middle)))
    scaled = (loss - middle) / spread
    worst = float(scaled[finite].max())
    scaled[~finite] = max(worst, 3.0)
    scaled = numpy.where(scaled > 0, numpy.log1p(numpy.maximum(scaled, 0)), scaled)
    deviation = float(scaled[finite].std()) or 1.0
    return (scaled - float(scaled[finite].mean())) / deviation
