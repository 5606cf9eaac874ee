"""The base class of a rule, and what it looks at."""

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
    """How far the trial was, in steps or tokens of the budget."""
    value: float | None
    """The search's objective as reported; None where it is missing."""

    @property
    def is_finite(self) -> bool:
        """Whether the value is there and finite."""
        return self.value is not None and math.isfinite(self.value)


Curve = Sequence[Reading]


class Rule(ABC):
    """Looks at one trial's curve after each evaluation.

    A rule has settings, the objective among them, and no state: the same curve always gets the same verdict, so a
    resumed search reaches the verdicts that it had reached before.
    """

    @abstractmethod
    def judge(self, curve: Curve) -> Verdict | None:
        """The verdict that ends the trial, or None to let it go on. `curve` is never empty, and its last reading is the
        newest."""
