"""The words of a rung's verdict. The decision needs the other trials and is ASHA's."""

from __future__ import annotations

from tuner.contract import Reason, Verdict


def behind(rung: int, eval_loss: float, needed: float) -> Verdict:
    """A trial stopped at `rung` (counted from 1) because its loss was above what going on needed."""
    return Verdict(Reason.RUNG, f"rung {rung} ({eval_loss:.3f}, needed {needed:.3f})")
