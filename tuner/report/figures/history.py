"""The best value over the trials: Optuna's history, and beside it what was stopped early."""

from __future__ import annotations

from typing import Any

from tuner.contract import Status
from tuner.report.facts import Facts
from tuner.report.figures.drawing import BY_NUMBER, COLOURS, dressed, text, value_range
from tuner.study.from_records import study_of

TOLD = "The value of each trial in the order of their starts, and the best one of those that ran to their end."


def draw(facts: Facts) -> list[Any]:
    """One plot."""
    import plotly.graph_objects as go
    from optuna.visualization import plot_optimization_history

    record = facts.record
    trials = sorted(record.ranked, key=lambda trial: trial.number)
    whole = [trial for trial in trials if trial.status is Status.COMPLETED]
    if not whole:
        return []
    title = text(record.objective.title)
    made = plot_optimization_history(study_of(record, whole, text), target_name=title)
    for trace in made.data:
        trace.name = {title: "ran to its end"}.get(trace.name, "best so far" if trace.mode == "lines" else trace.name)
        trace.marker.color = trace.line.color = COLOURS["completed"]
    for trace in made.data:
        trace.x = [whole[at].number for at in trace.x or ()]  # Optuna numbers the trials of a study from 0
    stopped = [trial for trial in trials if trial.status is not Status.COMPLETED]
    if stopped:
        made.add_trace(
            go.Scatter(
                x=[trial.number for trial in stopped],
                y=[trial.best_value for trial in stopped],
                text=[trial.number for trial in stopped],
                meta=BY_NUMBER,
                name="stopped early",
                mode="markers",
                marker={"color": COLOURS["pruned"], "symbol": "circle-open"},
                hovertemplate="%{text}<br><b>%{y:.4g}</b><extra></extra>",
            )
        )
    made.update_yaxes(range=value_range(record))
    return [dressed(made)]
