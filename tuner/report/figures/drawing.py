"""Colours, texts and axes that the plots of a report share."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from tuner.contract import Objective
from tuner.report import formatting as words
from tuner.report.lines import clean, shorten
from tuner.report.table import label_of
from tuner.results.records import SearchRecord, TrialRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS: Mapping[str, str] = {
    "completed": "#2f81c9",
    "pruned": "#8b949e",
    "diverged": "#d98324",
    "failed": "#d9534f",
    "stopped": "#b08800",
    "running": "#3fb0ac",
    "parked": "#a371d8",
    "interrupted": "#a371d8",
    "": "#8b949e",
}
"""By state of a trial. All can be seen on white and on black."""
BEST, RECIPE_COLOUR = "#2da44e", "#c2539b"
"""The colours of the winner and of the recipe."""
MOST_CURVES = 200
"""The most trials of which single ones are drawn; with more, the best ones are."""
MOST_POINTS = 60
"""The most evaluations of one curve that are drawn."""
MOST_ROWS = 16
"""The most parameters in the box that the pointer opens."""
BY_NUMBER = "trials"
"""The `meta` of a trace whose texts are numbers of trials; the page puts what `told_of` says in their place."""
HEIGHT = 360
"""Pixels of a plot."""


def text(value: Any, longest: int = 60) -> str:
    """A text that others wrote, as plotly shows it: it takes <b> and <a> for markup, and fills in %{x}."""
    return escape(shorten(clean(str(value)), longest), quote=True).replace("%", "&#37;")


def told_of(trial: TrialRecord, labels: Mapping[str, str]) -> str:
    """A trial in full, for the box that the pointer opens. The page has it once, and plots have the trial's number: see
    `BY_NUMBER`."""
    rows = [f"{text(label_of(name, labels))} {text(words.value(value))}" for name, value in trial.params.items()]
    return "<br>".join([f"<b>trial {trial.number}</b> · {text(trial.ending)}", *rows[:MOST_ROWS]])


def drawn(record: SearchRecord) -> list[TrialRecord]:
    """The trials of which single ones are drawn, the winner first."""
    return record.leaderboard[:MOST_CURVES]


def thinned(points: list[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most so many points, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(at * (len(points) - 1) / (most - 1))] for at in range(most)]


def figure(traces: list[Any], *, x: str, y: str, height: int = HEIGHT, **layout: Any) -> go.Figure:
    """A plot with the axes' titles; colours of grounds and text are set by the page."""
    import plotly.graph_objects as go

    made = go.Figure(data=traces)
    made.update_layout(xaxis_title=x, yaxis_title=y, **layout)
    return dressed(made, height)


def dressed(made: go.Figure, height: int = HEIGHT) -> go.Figure:
    """The plot without a title and a template, which the page has instead."""
    made.update_layout(
        template="none",
        title=None,
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        plot_bgcolor="rgba(0,0,0,0)",
        paper_bgcolor="rgba(0,0,0,0)",
    )
    return made


def value_range(record: SearchRecord) -> list[float] | None:
    """The values that a plot shows at first: from the best one to the upper quartile of the first ones, so that one
    diverged trial does not make all others flat. None where there are too few."""
    objective: Objective = record.compared_by
    curves = [trial.curve for trial in record.trials.values() if trial.curve]
    if not curves:
        return None
    firsts = sorted(objective.cost(curve[0]) for curve in curves)
    best = min(objective.cost(value) for curve in curves for value in curve)
    far = firsts[(3 * (len(firsts) - 1) + 3) // 4]
    room = (far - best) * 0.06
    if not room > 0:
        return None
    ends = [best - room, far + room]
    return ends if objective.falls else [-ends[1], -ends[0]]
