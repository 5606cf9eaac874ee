"""The verdict of a trial that is stopped at a rung. The decision needs the other trials and is an algorithm's."""

from __future__ import annotations

from tuner.contract import Reason, Verdict


def behind(rung: int, value: float, needed: float) -> Verdict:
    """The verdict on a trial at `rung` (counted from 1) whose `value` is worse than the `needed` one."""
    return Verdict(Reason.RUNG, f"rung {rung} ({value:.3f}, needed {needed:.3f})")
