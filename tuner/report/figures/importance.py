"""Which parameters mattered, with the interval of the resamples."""

from __future__ import annotations

from typing import Any

from tuner.report.facts import Facts
from tuner.report.figures.drawing import COLOURS, figure, text
from tuner.report.table import label_of
from tuner.study.importance import RESAMPLES

TOLD = (
    "PED-ANOVA's share of the importance by parameter: how differently the best trials are spread from all. A line "
    f"holds 90% of {RESAMPLES} bootstrap resamples of the trials. Blue: shuffles of the results seldom give as much. "
    "Grey: it cannot be told from chance."
)


def draw(facts: Facts) -> list[Any]:
    """One plot."""
    import plotly.graph_objects as go

    known = facts.found.importances
    if known is None:
        return []
    shown = list(reversed(known.parameters[:30]))  # plotly draws the first at the bottom
    bars = go.Bar(
        x=[one.share for one in shown],
        y=[text(label_of(one.name, facts.labels)) for one in shown],
        orientation="h",
        marker={"color": [COLOURS["completed" if one.matters else "pruned"] for one in shown]},
        error_x={
            "type": "data",
            "symmetric": False,
            "color": "#6e7681",
            "array": [max(0.0, one.high - one.share) for one in shown],
            "arrayminus": [max(0.0, one.share - one.low) for one in shown],
        },
        text=[f"chance gives as much in {one.chance:.0%} of the shuffles" for one in shown],
        textposition="none",
        hovertemplate="%{y}: <b>%{x:.1%}</b><br>%{text}<extra></extra>",
    )
    made = figure([bars], x="share of the importance", y="", height=110 + 34 * len(shown), xaxis_tickformat=".0%")
    made.update_layout(xaxis_range=[0, 1.02], margin_l=150, yaxis_type="category")
    return [made]
