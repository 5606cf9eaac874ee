"""Which ends of a space are too large for a GPU, by what the program says of its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.driver.plan import Plan
from tuner.space.parameters import shown


@dataclass(frozen=True)
class Corner:
    """A point of the space that does not fit."""

    params: Mapping[str, Any]
    """What differs from the recipe."""
    bytes: int
    """What a trial there takes on a GPU, or an engine full of such trials."""

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"params": dict(self.params), "bytes": self.bytes}

    @property
    def text(self) -> str:
        """ "lora_r 256 (82.1 GB)"; "the recipe (...)" where nothing differs."""
        what = ", ".join(f"{name} {shown(value)}" for name, value in self.params.items()) or "the recipe"
        return f"{what} ({self.bytes / 1e9:.1f} GB)"


def too_large(plan: Plan, capacity: int) -> list[Corner]:
    """The recipe, the ends of the space in one parameter, and the largest trial, as far as they take more than
    `capacity` bytes. Where one parameter is too large by itself, the largest trial is not told as well."""
    found = [
        Corner(params, need)
        for params in plan.points
        if (need := plan.memory_of(params)) is not None and need > capacity
    ]
    need = plan.memory_of(plan.heaviest)
    if not found and need is not None and need > capacity:
        found.append(Corner(plan.heaviest, need))
    return found
