"""All parameters of a trial at once: Optuna's parallel coordinates over the usable trials."""

from __future__ import annotations

from typing import Any

from tuner.report.facts import Facts
from tuner.report.figures.drawing import BEST, COLOURS, MOST_CURVES, dressed, text
from tuner.report.table import label_of
from tuner.study.from_records import study_of

TOLD = (
    "A line a trial through its value and all of its parameters: the winner green, the best third blue. Trials that "
    "were stopped early have the value that they had then."
)
_LINES = {
    "best": {"color": BEST, "width": 3.5},
    "third": {"color": COLOURS["completed"], "width": 1.6},
    "rest": {"color": COLOURS["pruned"], "width": 1},
}
MOST = 12
"""The most parameters that are drawn."""


def draw(facts: Facts) -> list[Any]:
    """One plot."""
    import plotly.graph_objects as go
    from optuna.visualization import plot_parallel_coordinate

    record, names = facts.record, facts.names[:MOST]
    trials = [t for t in list(record.ranked)[:MOST_CURVES] if any(name in t.distributions for name in names)]
    if len(trials) < 2 or len(names) < 2:
        return []
    headings = {name: text(label_of(name, facts.labels)) for name in names}
    if len(set(headings.values())) < len(names):
        headings = {name: text(name) for name in names}
    study = study_of(record, trials, text, headings)
    made = dressed(plot_parallel_coordinate(study, target_name=text(record.objective.title)), 460)
    # Optuna's scale ends in dark blue, which is not seen on black; and a diverging trial leaves all others one colour.
    lines = [trace for trace in made.data if trace.mode == "lines" and len(trace.x) > 1]
    values = [trial.best_value or 0.0 for trial in trials]
    low, span = min(values), (max(values) - min(values)) or 1.0
    places = [min(range(len(trials)), key=lambda at: abs((values[at] - low) / span - trace.y[0])) for trace in lines]
    for place, trace in zip(places, lines, strict=True):  # Optuna has them in an order of its own
        kind = "best" if place == 0 else "third" if place < len(lines) / 3 else "rest"
        trace.line, trace.opacity = _LINES[kind], 0.6 if kind == "rest" else 0.9
    order = sorted(range(len(lines)), key=lambda at: -places[at])  # the winner last, so on top
    made = go.Figure(data=[lines[at] for at in order], layout=made.layout)
    made.update_layout(xaxis_title=None, yaxis_title=None, showlegend=False)
    return [made]
