"""Where the workers' time went, by ending."""

from __future__ import annotations

from typing import Any

from tuner.report.facts import Facts
from tuner.report.figures.drawing import COLOURS, figure, text

TOLD = "Hours of workers by how the trials ended, set-up apart from training."
MOST = 20
"""The most endings that are drawn."""


def draw(facts: Facts) -> list[Any]:
    """One plot."""
    import plotly.graph_objects as go

    shown = list(reversed(facts.spending[:MOST]))
    if not any(one.seconds for one in shown):
        return []
    names = [text(one.ending) + (f" ({one.trials})" if one.trials else "") for one in shown]
    small = max(one.seconds for one in shown) < 3600
    unit, seconds = ("worker-minutes", 60) if small else ("worker-hours", 3600)
    colours = [COLOURS["diverged" if "diverged" in one.ending else one.state] for one in shown]
    hover = f"%{{y}}: <b>%{{x:.2f}}</b> {unit}<extra>%{{fullData.name}}</extra>"
    traces = [
        go.Bar(x=[values(one) / seconds for one in shown], y=names, orientation="h", name=name, opacity=opacity,
               marker={"color": colours}, hovertemplate=hover)
        for name, values, opacity in (
            ("training and evaluation", lambda one: one.trained_s, 1.0),
            ("start and set-up", lambda one: one.set_up_s, 0.45),
        )
    ]  # fmt: skip
    made = figure(traces, x=unit, y="", height=110 + 32 * len(shown), barmode="stack")
    made.update_layout(margin_l=210, yaxis_type="category")
    return [made]
