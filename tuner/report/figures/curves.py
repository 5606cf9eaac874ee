"""Every trial's curve, coloured by how the trial ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.report.facts import Facts, state_of, steps_of
from tuner.report.figures.drawing import (
    BEST,
    BY_NUMBER,
    COLOURS,
    RECIPE_COLOUR,
    drawn,
    figure,
    text,
    thinned,
    value_range,
)
from tuner.results.records import TrialRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go

TOLD = "Each trial's evaluations, coloured by how it ended. A click in the legend hides an ending."


def draw(facts: Facts) -> list[Any]:
    """One plot."""
    record = facts.record
    trials = [trial for trial in drawn(record) if trial.curve]
    if not trials:
        return []
    named = {trial.number: trial for trial in (record.recipe, record.best) if trial is not None and trial.curve}
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.number not in named:
            groups.setdefault(state_of(trial), []).append(trial)
    traces = [_trace(facts, group, state, COLOURS[state], 1.2) for state, group in groups.items()]
    for number, trial in named.items():
        won = trial is record.best
        name = f"trial {number}" + (", the best" if won else "") + (", the recipe" if trial is record.recipe else "")
        traces.append(_trace(facts, [trial], name, BEST if won else RECIPE_COLOUR, 3))
    unit = "step" if steps_of(record) else "% of the budget"
    title = text(record.compared_by.title)
    return [figure(traces, x=unit, y=title, height=430, yaxis_range=value_range(record))]


def _trace(facts: Facts, trials: list[TrialRecord], name: str, colour: str, wide: float) -> go.Scatter:
    """The curves of some trials as one trace, with a gap between two."""
    import plotly.graph_objects as go

    whole = steps_of(facts.record)
    x: list[float | None] = []
    y: list[float | None] = []
    about: list[int | str] = []
    for trial in trials:
        for point in thinned([point for point in trial.points if point.is_finite]):
            x.append(point.step if whole else round(100 * point.step / (trial.max_steps or point.step or 1), 2))
            y.append(point.value)
            about.append(trial.number)
        x.append(None)
        y.append(None)
        about.append("")
    return go.Scatter(
        x=x, y=y, text=about, meta=BY_NUMBER, name=name, mode="lines+markers", line={"color": colour, "width": wide},
        marker={"size": 4 if wide < 2 else 6}, connectgaps=False,
        hovertemplate="%{text}<br>%{x}: <b>%{y:.4g}</b><extra></extra>",
    )  # fmt: skip
