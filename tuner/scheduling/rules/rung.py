"""The words of a rung's verdict. The decision needs the other trials and is an algorithm's."""

from __future__ import annotations

from tuner.contract import Reason, Verdict


def behind(rung: int, value: float, needed: float) -> Verdict:
    """A trial stopped at `rung` (counted from 1) because its value was worse than what going on needed."""
    return Verdict(Reason.RUNG, f"rung {rung} ({value:.3f}, needed {needed:.3f})")
