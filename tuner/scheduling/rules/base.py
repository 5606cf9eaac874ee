"""What a rule is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.contract import Verdict


@dataclass(frozen=True)
class Reading:
    """One evaluation as a rule sees it."""

    resource: int
    """Steps or tokens of the budget, counted up."""
    value: float | None
    """Of the search's objective, as reported."""

    @property
    def is_finite(self) -> bool:
        return self.value is not None and math.isfinite(self.value)


Curve = Sequence[Reading]


class Rule(ABC):
    """Looks at one trial's curve after each evaluation.

    A rule holds settings, the objective among them, and no state: asked twice about a curve it answers twice the same,
    which is what lets a resumed search reach the verdicts it had reached.
    """

    @abstractmethod
    def judge(self, curve: Curve) -> Verdict | None:
        """The verdict that ends the trial, or None to let it go on. `curve` is never empty; its last is the newest."""
