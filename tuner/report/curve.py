"""Curves as text: a sparkline for a table's cell, a plot for one trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuner.report import formatting as words
from tuner.report.lines import Line, line
from tuner.results.records import Point, SearchRecord, TrialRecord

BLOCKS = "▁▂▃▄▅▆▇"
NOT_FINITE = "!"
WIDTH = 7


@dataclass(frozen=True)
class Scale:
    """What one sparkline's heights and places mean, the same for every trial of a search, so that rows compare.

    The top is the upper quartile of the first losses and not the highest loss: one diverged trial would press all
    others flat. Heights go with the square root of the distance to the lowest loss, since the differences worth
    seeing are those near it: linearly, most good trials end as the same flat line.
    """

    low: float
    high: float
    evaluations: int

    @classmethod
    def of(cls, record: SearchRecord) -> Scale:
        curves = [trial.curve for trial in record.trials.values() if trial.curve]
        if not curves:
            return cls(0.0, 1.0, WIDTH)
        firsts = sorted(curve[0] for curve in curves)
        low = min(min(curve) for curve in curves)
        high = firsts[(3 * (len(firsts) - 1) + 3) // 4]
        longest = max(len(trial.points) for trial in record.trials.values())
        return cls(low, max(high, low), max(WIDTH, longest))

    def block(self, loss: float | None) -> str:
        if loss is None or not math.isfinite(loss):
            return NOT_FINITE
        if self.high <= self.low:
            return BLOCKS[0]
        height = math.sqrt(min(1.0, max(0.0, (loss - self.low) / (self.high - self.low))))
        return BLOCKS[round(height * (len(BLOCKS) - 1))]


def sparkline(points: Sequence[Point], scale: Scale) -> str:
    """Validation losses as at most seven blocks, oldest first; a trial stopped early has fewer."""
    cells: dict[int, str] = {}
    for index, point in enumerate(points):
        cells[round(index * (WIDTH - 1) / (scale.evaluations - 1))] = scale.block(point.eval_loss)
    return "".join(cells[place] for place in sorted(cells))


def plot(trial: TrialRecord, width: int = 60, height: int = 9, recipe: TrialRecord | None = None) -> list[Line]:
    """Validation loss over steps: the trial's evaluations as "●" joined by "·", and the recipe's as "o" behind them.

    The axis is the whole trial's steps, so that a curve that was cut off looks cut off.
    """
    points = [(p.step, p.eval_loss) for p in trial.points if p.is_finite and p.eval_loss is not None]
    behind = [(p.step, p.eval_loss) for p in recipe.points if p.is_finite and p.eval_loss is not None] if recipe else []
    if not points:
        return []
    last = max([trial.max_steps or 0, points[-1][0], 1])
    if recipe and recipe.max_steps:  # steps differ between trials where epochs are the budget: compare shares
        behind = [(round(step * last / recipe.max_steps), loss) for step, loss in behind]
    losses = [loss for _, loss in points]
    low = min(losses + [loss for _, loss in behind])
    high = max(losses[0], *losses) if len(losses) < 3 else _ceiling(losses)
    high = max([high] + [loss for _, loss in behind[:1]])
    span = (high - low) or max(abs(low) * 0.01, 1e-9)
    grid = [[(" ", "")] * width for _ in range(height)]

    def cell(step: float, loss: float) -> tuple[int, int]:
        x = round(min(1.0, max(0.0, step / last)) * (width - 1))
        y = round((1 - min(1.0, max(0.0, (loss - low) / span))) * (height - 1))
        return x, y

    def draw(series: list[tuple[int, float]], joint: str, mark: str, joint_style: str, style: str) -> None:
        for (s0, l0), (s1, l1) in pairwise(series):
            x0, x1 = cell(s0, l0)[0], cell(s1, l1)[0]
            for x in range(x0, x1 + 1):
                t = (x - x0) / (x1 - x0) if x1 > x0 else 0.0
                grid[cell(s0, l0 + t * (l1 - l0))[1]][x] = (joint, joint_style)
        for step, loss in series:
            x, y = cell(step, loss)
            grid[y][x] = (mark, style)

    draw(behind, " ", "o", "dim", "dim")
    draw(points, "·", "●", "run", "strong")
    margin = max(len(words.loss(low)), len(words.loss(high)))
    ticks = {0: words.loss(low + span), height - 1: words.loss(low), height // 2: words.loss(low + span / 2)}
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


def _ceiling(losses: list[float]) -> float:
    """The top of the plot: the highest loss, unless it towers over the others, then it stands on the rim."""
    ordered = sorted(losses)
    return ordered[-1] if ordered[-1] <= 4 * max(ordered[len(ordered) // 2], 1e-9) else ordered[-2]
