"""The plots of a search's report: one file a plot, found by name in FIGURES; what Optuna draws well is Optuna's.

drawing     colours, and what every plot has   history     the best value over time
curves      every trial's curve, by ending     importance  which parameters mattered, with its uncertainty
slices      the value over each parameter      parallel    all parameters of a trial at once
rungs       what was stopped where             spending    where the workers' time went
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tuner.report.figures import curves, history, importance, parallel, rungs, slices, spending

if TYPE_CHECKING:
    from tuner.report.facts import Facts


class Registered(NamedTuple):
    """A plot, or several of one kind."""

    title: str
    """Its heading on the page."""
    told: str
    """A sentence below the heading."""
    draw: Callable[[Facts], list[Any]]
    """Makes it: a list of `plotly.graph_objects.Figure`, empty where there is nothing to draw."""


FIGURES: Mapping[str, Registered] = {
    "curves": Registered("Curves", curves.TOLD, curves.draw),
    "history": Registered("History", history.TOLD, history.draw),
    "importance": Registered("What mattered", importance.TOLD, importance.draw),
    "slices": Registered("Slices", slices.TOLD, slices.draw),
    "parallel": Registered("Parallel coordinates", parallel.TOLD, parallel.draw),
    "rungs": Registered("Rungs", rungs.TOLD, rungs.draw),
    "spending": Registered("Where the time went", spending.TOLD, spending.draw),
}
"""In the order of the page."""
