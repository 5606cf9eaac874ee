"""No validation loss was reported."""

from __future__ import annotations

from tuner.contract import Reason, Verdict
from tuner.scheduling.rules.base import Curve, Rule


class Missing(Rule):
    """Fails a trial whose evaluation carries no `eval_loss`.

    Ray's own ASHA raises on None and takes the whole search down with it; here one trial ends, and the others go on.
    """

    def judge(self, curve: Curve) -> Verdict | None:
        if curve[-1].eval_loss is not None:
            return None
        return Verdict(
            Reason.ERROR,
            f"no eval_loss at {curve[-1].resource}",
            "the program must report eval_loss at every evaluation",
        )
