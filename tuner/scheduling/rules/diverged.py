"""The loss is lost: not a finite number, or far above where the trial began."""

from __future__ import annotations

from tuner.contract import Reason, Verdict
from tuner.scheduling.rules.base import Curve, Rule


class Diverged(Rule):
    """Ends a trial whose loss is not finite, or exceeds `factor` times its first finite loss.

    1. NaN, infinity and minus infinity diverge at once, also at the first evaluation.
    2. None is not this rule's: a missing number says nothing about the trial.
    3. factor None: only what is not finite diverges.
    """

    def __init__(self, factor: float | None = 2.0) -> None:
        if factor is not None and factor <= 1:
            raise ValueError(f"factor must be above 1 but got {factor}.")
        self._factor = factor

    def judge(self, curve: Curve) -> Verdict | None:
        last = curve[-1]
        if last.eval_loss is None:
            return None
        if not last.is_finite:
            return Verdict(Reason.DIVERGED, f"diverged (loss {last.eval_loss})")
        first = next(r.eval_loss for r in curve if r.is_finite)
        if self._factor is None or first is None or first <= 0 or last.eval_loss <= self._factor * first:
            return None
        return Verdict(Reason.DIVERGED, f"diverged ({last.eval_loss / first:.1f} times its first loss)")
