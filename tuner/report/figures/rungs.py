"""What the trials had at each rung, and which of them were stopped there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.report.facts import Facts, steps_of
from tuner.report.figures.drawing import BEST, BY_NUMBER, COLOURS, MOST_CURVES, figure, text, value_range

if TYPE_CHECKING:
    import plotly.graph_objects as go

TOLD = (
    "The value of every trial that reached a rung. A cross was stopped there because it was behind the others, a dot "
    "went on or ended otherwise."
)


def draw(facts: Facts) -> list[Any]:
    """One plot."""
    rungs = [rung for rung in facts.rungs if rung.values]
    if not rungs:
        return []
    record = facts.record
    places = []
    for rung in rungs:
        steps = steps_of(record)
        at = f"step {round(rung.share * steps)}" if steps else f"{rung.share:.0%} of the budget"
        places.append(f"rung {rung.number} · {at}<br>{len(rung.values)} compared, {rung.stopped} stopped")
    traces = [_dots(facts, stopped) for stopped in (False, True)]
    made = figure(traces, x="", y=text(record.compared_by.title), height=400, yaxis_range=value_range(record))
    made.update_xaxes(
        tickmode="array", tickvals=[rung.number for rung in rungs], ticktext=places,
        range=[rungs[0].number - 0.5, rungs[-1].number + 0.5], showgrid=False,
    )  # fmt: skip
    return [made]


def _dots(facts: Facts, stopped: bool) -> go.Scatter:
    import plotly.graph_objects as go

    record = facts.record
    told = [
        (rung.number, number, value)
        for rung in facts.rungs
        for number, value, was_stopped in rung.values[-MOST_CURVES:]
        if was_stopped is stopped
    ]
    best = record.best.number if record.best else None
    # Side by side in the order of the trials, so that equal values do not hide each other.
    spread = max(len(record.trials) - 1, 1)
    return go.Scatter(
        x=[rung + 0.5 * (number / spread - 0.5) for rung, number, _ in told],
        y=[value for _, _, value in told],
        text=[n for _, n, _ in told],
        meta=BY_NUMBER,
        name="stopped there" if stopped else "went on, or ended otherwise",
        mode="markers",
        marker={
            "symbol": "x" if stopped else "circle",
            "size": 8,
            "color": [BEST if n == best else COLOURS["pruned" if stopped else "completed"] for _, n, _ in told],
        },
        hovertemplate="%{text}<br><b>%{y:.4g}</b><extra></extra>",
    )
