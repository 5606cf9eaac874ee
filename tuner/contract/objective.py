"""A number that a search makes better: its name, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Objective:
    """One number that a program measures at every evaluation.

    Every comparison of values in the driver is made here, so that nothing else has to know the direction.
    """

    name: str
    """Its key in `Evaluation.metrics`, in the ledger, in `--json` and in trackers ("eval_loss")."""
    label: str = ""
    """How tables and sentences call it ("validation loss"); the name where it is empty."""
    direction: Literal["minimize", "maximize"] = "minimize"
    """Optuna's words."""

    @property
    def title(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name

    @property
    def falls(self) -> bool:
        """Whether a smaller value is better."""
        return self.direction == "minimize"

    def cost(self, value: float) -> float:
        """The value with the sign with which smaller is better."""
        return value if self.falls else -value

    def better(self, value: float | None, other: float | None) -> bool:
        """Whether `value` is strictly better than `other`. None and NaN are worse than every number."""
        if value is None or math.isnan(value):
            return False
        return other is None or math.isnan(other) or self.cost(value) < self.cost(other)

    def best(self, items: Iterable[T], value: Callable[[T], float | None]) -> T | None:
        """The first of the items with the best value; None where no item has a value that is a number."""
        found: T | None = None
        for item in items:
            if self.better(value(item), None if found is None else value(found)):
                found = item
        return found
