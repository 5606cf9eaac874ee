"""Completes a trial that has converged: its value no longer gets better."""

from __future__ import annotations

from tuner.contract import Objective, Reason, Verdict
from tuner.scheduling.rules.base import Curve, Rule


class Flatline(Rule):
    """Completes a trial whose best value has not improved by more than `min_delta` over `patience` evaluations.

    min_delta is relative: 0.001 means that the best of the last `patience` evaluations must be more than 0.1% better
    than the best before them. A value that gets worse is flat too: its best lies behind it. Ray's TrialPlateauStopper
    looks at an absolute standard deviation instead, which noise keeps alive and which depends on the scale of the loss.

    after: steps or tokens before which there is no verdict. While the learning rate is at its peak a loss can stand
    still for a while and fall again as the schedule lowers it: of 16 trials of the embedded default, two were called
    flat at 30 of 100 steps, and their losses fell by another tenth later.

    1. Fewer than `patience` + 1 finite readings: no verdict.
    2. Readings that are not finite are left out; other rules answer for them.
    """

    def __init__(self, objective: Objective, patience: int = 3, min_delta: float = 0.001, after: float = 0) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1 but got {patience}.")
        if min_delta < 0:
            raise ValueError(f"min_delta cannot be negative but got {min_delta}.")
        self._objective, self._patience, self._min_delta, self._after = objective, patience, min_delta, after

    def judge(self, curve: Curve) -> Verdict | None:
        costs = [self._objective.cost(r.value) for r in curve if r.is_finite and r.value is not None]
        if len(costs) <= self._patience or curve[-1].resource < self._after:
            return None
        before, recent = min(costs[: -self._patience]), min(costs[-self._patience :])
        if before - recent > self._min_delta * abs(before):
            return None
        return Verdict(Reason.FLATLINE, f"flat, {self._patience} evaluations within {self._min_delta:.2g} of its best")
