"""Ends a trial that diverged: its value is not finite, or far worse than its first one."""

from __future__ import annotations

from tuner.contract import Objective, Reason, Verdict
from tuner.scheduling.rules.base import Curve, Rule


class Diverged(Rule):
    """Ends a trial whose value is not finite, or `factor` times worse than its first finite one: above it where the
    value falls, as a loss does, below a `factor`-th of it where it rises.

    1. NaN, infinity and minus infinity diverge at once, also at the first evaluation.
    2. A missing value (None) is another rule's: it says nothing about the trial.
    3. factor None: only what is not finite diverges.
    """

    def __init__(self, objective: Objective, factor: float | None = 2.0) -> None:
        if factor is not None and factor <= 1:
            raise ValueError(f"factor must be above 1 but got {factor}.")
        self._objective, self._factor = objective, factor

    def judge(self, curve: Curve) -> Verdict | None:
        last = curve[-1]
        if last.value is None:
            return None
        what = self._objective.noun
        if not last.is_finite:
            return Verdict(Reason.DIVERGED, f"diverged ({what} {last.value})")
        first = next(r.value for r in curve if r.is_finite)
        if self._factor is None or first is None or first <= 0:
            return None
        bound = self._factor * first if self._objective.falls else first / self._factor
        if not self._objective.better(bound, last.value):
            return None
        return Verdict(Reason.DIVERGED, f"diverged ({last.value / first:.1f} times its first {what})")
