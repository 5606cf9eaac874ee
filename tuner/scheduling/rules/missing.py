"""Fails a trial that did not report the objective."""

from __future__ import annotations

from tuner.contract import Objective, Reason, Verdict
from tuner.scheduling.rules.base import Curve, Rule


class Missing(Rule):
    """Fails a trial whose evaluation does not carry the objective.

    Ray's own ASHA raises on None and takes the whole search down with it; here one trial ends, and the others go on.
    """

    def __init__(self, objective: Objective) -> None:
        self._name = objective.name

    def judge(self, curve: Curve) -> Verdict | None:
        if curve[-1].value is not None:
            return None
        return Verdict(
            Reason.ERROR,
            f"no {self._name} at {curve[-1].resource}",
            f"the program must report {self._name} at every evaluation",
        )
