"""Draws curves as text: a sparkline for a table's cell, a plot for one trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuner.contract import EVAL_LOSS, Objective
from tuner.report import formatting as words
from tuner.report.lines import Line, line
from tuner.results.records import Point, SearchRecord, TrialRecord

BLOCKS = "▁▂▃▄▅▆▇"
"""The heights of a sparkline."""
NOT_FINITE = "!"
"""In place of a block, for a value that is missing or not finite."""
WIDTH = 7
"""Cells of a sparkline."""


@dataclass(frozen=True)
class Scale:
    """The axes of the sparklines, the same for every trial of a search, so that rows can be compared.

    The far end is the upper quartile of the first values and not the worst value: one diverged trial would make all
    others flat. Height is the square root of the distance to the best value, because good trials differ only near it:
    on a linear axis they look the same.
    """

    best: float
    """The lowest cost of any trial."""
    far: float
    """The cost at the other end; a higher one is drawn as this one."""
    evaluations: int
    """Evaluations over the width of a sparkline."""
    objective: Objective = EVAL_LOSS
    """What is drawn."""

    @classmethod
    def of(cls, record: SearchRecord) -> Scale:
        """The axes for a search as it is now."""
        curves = [trial.curve for trial in record.trials.values() if trial.curve]
        if not curves:
            return cls(0.0, 1.0, WIDTH, record.compared_by)
        cost = record.compared_by.cost
        firsts = sorted(cost(curve[0]) for curve in curves)
        best = min(cost(value) for curve in curves for value in curve)
        far = firsts[(3 * (len(firsts) - 1) + 3) // 4]
        longest = max(len(trial.points) for trial in record.trials.values())
        return cls(best, max(far, best), max(WIDTH, longest), record.compared_by)

    def block(self, value: float | None) -> str:
        """The block of one value. The best value is the lowest block if smaller values are better, else the highest."""
        if value is None or not math.isfinite(value):
            return NOT_FINITE
        distance = 0.0
        if self.far > self.best:
            share = (self.objective.cost(value) - self.best) / (self.far - self.best)
            distance = math.sqrt(min(1.0, max(0.0, share)))
        height = distance if self.objective.falls else 1 - distance
        return BLOCKS[round(height * (len(BLOCKS) - 1))]


def sparkline(points: Sequence[Point], scale: Scale) -> str:
    """The values as at most WIDTH blocks, oldest first; a trial that was stopped early has fewer."""
    cells: dict[int, str] = {}
    for index, point in enumerate(points):
        cells[round(index * (WIDTH - 1) / (scale.evaluations - 1))] = scale.block(point.value)
    return "".join(cells[place] for place in sorted(cells))


def plot(trial: TrialRecord, width: int = 60, height: int = 9, recipe: TrialRecord | None = None) -> list[Line]:
    """What trials are compared by, over steps: the trial's as "●" joined by "·", and the recipe's as "o" behind them.

    The axis has all steps of the budget, so that a trial that was stopped early has a shorter curve. width, height: of
    the plot's inside, in cells. Returns nothing for a trial without a finite value.
    """
    points, behind = _finite(trial), _finite(recipe) if recipe else []
    if not points:
        return []
    last = max([trial.max_steps or 0, points[-1][0], 1])
    if recipe and recipe.max_steps:  # trials differ in steps if the budget is in epochs: compare shares of it
        behind = [(round(step * last / recipe.max_steps), value) for step, value in behind]
    low, high = _range([value for _, value in points], [value for _, value in behind], trial.compared_by)
    span = (high - low) or max(abs(low) * 0.01, 1e-9)
    grid = [[(" ", "")] * width for _ in range(height)]

    def cell(step: float, value: float) -> tuple[int, int]:
        x = round(min(1.0, max(0.0, step / last)) * (width - 1))
        y = round((1 - min(1.0, max(0.0, (value - low) / span))) * (height - 1))
        return x, y

    def draw(series: list[tuple[int, float]], joint: str, mark: str, joint_style: str, style: str) -> None:
        for (s0, l0), (s1, l1) in pairwise(series):
            x0, x1 = cell(s0, l0)[0], cell(s1, l1)[0]
            for x in range(x0, x1 + 1):
                t = (x - x0) / (x1 - x0) if x1 > x0 else 0.0
                grid[cell(s0, l0 + t * (l1 - l0))[1]][x] = (joint, joint_style)
        for step, value in series:
            x, y = cell(step, value)
            grid[y][x] = (mark, style)

    draw(behind, " ", "o", "dim", "dim")
    draw(points, "·", "●", "run", "strong")
    margin = max(len(words.measured(low)), len(words.measured(high)))
    ticks = {
        0: words.measured(low + span),
        height - 1: words.measured(low),
        height // 2: words.measured(low + span / 2),
    }
    rows = []
    for y, cells in enumerate(grid):
        tick = ticks.get(y, "")
        rows.append(line((f"{tick:>{margin}} ", "dim"), ("┤" if tick else "│", "dim"), *cells))
    rows.append(line((" " * (margin + 1) + "└" + "─" * width, "dim")))
    foot = f"{0:<{width // 2}}{'step ' + str(last):>{width - width // 2}}"
    rows.append(line((" " * (margin + 2) + foot, "dim")))
    if behind:
        rows.append(line((" " * (margin + 2) + "● this trial   o the recipe", "dim")))
    return rows


def _finite(trial: TrialRecord) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in trial.points if p.is_finite and p.value is not None]


def _range(own: list[float], behind: list[float], objective: Objective) -> tuple[float, float]:
    """The lowest and the highest value of a plot of both curves. Worse values are drawn on its edge: a loss above 4
    times the trial's median, and values of the recipe that are worse than its first."""
    worst = max(own, key=objective.cost)
    if objective.falls and len(own) > 2:
        ordered = sorted(own)
        worst = ordered[-1] if ordered[-1] <= 4 * max(ordered[len(ordered) // 2], 1e-9) else ordered[-2]
    ends = [worst, *behind[:1], min([*own, *behind], key=objective.cost)]
    return min(ends), max(ends)
