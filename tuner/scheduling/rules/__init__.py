"""Rules: curve in, verdict out. To add one, write its file and name it in `make_rules`.

base.py     what a rule is
missing.py  no number was reported
diverged.py not finite, or far worse than where the trial began
flatline.py converged
rung.py     the message of a rung's verdict; the decision is an algorithm's, because it needs the other trials
"""

from __future__ import annotations

from typing import Any

from tuner.contract import Objective
from tuner.scheduling.rules.base import Curve, Reading, Rule
from tuner.scheduling.rules.diverged import Diverged
from tuner.scheduling.rules.flatline import Flatline
from tuner.scheduling.rules.missing import Missing

__all__ = ["Curve", "Diverged", "Flatline", "Missing", "Reading", "Rule", "make_rules"]


def make_rules(settings: Any, max_t: int, objective: Objective) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules of `scheduler` settings, for a budget of `max_t`: those asked before the rungs, and those asked after.

    The first look for a missing or a diverged value, which must never reach a rung: a NaN is below no cut-off and would
    pass. Flatline comes after, so that a trial that is behind others is called behind and not converged.
    """
    before: tuple[Rule, ...] = (
        Missing(objective),
        Diverged(objective, settings.diverged.factor if settings.diverged else None),
    )
    flat = settings.flatline
    if flat is None:
        return before, ()
    return before, (Flatline(objective, patience=flat.patience, min_delta=flat.min_delta, after=flat.after * max_t),)
