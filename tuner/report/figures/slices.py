"""The value over each parameter: a plot a parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.report import formatting as words
from tuner.report.facts import Facts, state_of
from tuner.report.figures.drawing import BEST, BY_NUMBER, COLOURS, drawn, figure, text, value_range
from tuner.report.table import label_of
from tuner.results.records import TrialRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go

TOLD = "The best value of each trial over each parameter. An open circle was stopped early: it had less time."
MOST = 16
"""The most parameters that are drawn."""


def draw(facts: Facts) -> list[Any]:
    """A plot for each parameter."""
    trials = [trial for trial in drawn(facts.record) if trial.best_value is not None]
    return [_slice(facts, trials, name) for name in facts.names[:MOST]] if trials else []


def _slice(facts: Facts, trials: list[TrialRecord], name: str) -> go.Figure:
    import plotly.graph_objects as go

    record = facts.record
    having = [trial for trial in trials if name in trial.params]
    values = [trial.params[name] for trial in having]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    states = [state_of(trial) for trial in having]
    dots = go.Scatter(
        x=values if numbers else [text(words.value(value)) for value in values],
        y=[trial.best_value for trial in having],
        text=[trial.number for trial in having],
        meta=BY_NUMBER,
        mode="markers",
        showlegend=False,
        marker={
            "color": [BEST if trial is record.best else COLOURS[s] for trial, s in zip(having, states, strict=True)],
            "size": [12 if trial is record.best else 8 for trial in having],
            "symbol": ["circle" if state == "completed" else "circle-open" for state in states],
        },
        hovertemplate="%{text}<br><b>%{y:.4g}</b><extra></extra>",
    )
    title = text(label_of(name, facts.labels))
    values_shown = value_range(record) if record.compared_by is record.objective else None
    made = figure([dots], x=title, y=text(record.objective.title), height=280, yaxis_range=values_shown)
    if not numbers:
        shown = list(dict.fromkeys(map(words.value, values)))
        made.update_layout(margin_r=45)  # for the last word
        made.update_xaxes(
            type="category",
            tickmode="array",
            tickvals=[text(value) for value in shown],
            ticktext=[text(value, 16) for value in shown],
        )
    elif values and min(values) > 0 and max(values) >= 4 * min(values):
        made.update_xaxes(type="log", dtick=1, exponentformat="power")
        few = sorted(set(values))
        if len(few) <= 8:  # a choice of numbers: its own values, not powers of ten
            made.update_xaxes(tickmode="array", tickvals=few, ticktext=[words.value(value) for value in few])
    return made
