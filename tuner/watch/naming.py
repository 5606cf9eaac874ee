"""Makes the title of a trial, for the dashboard, its process and its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Naming:
    """Names a trial by its number and its parameters: "trial 7 lr=3.1e-4 r=16"."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Short names of parameters."""

    def title(self, number: int, params: Mapping[str, Any]) -> str:
        """The title of trial `number`. params: its values by parameter."""
        words = [f"{self.labels.get(name, name)}={_short(value)}" for name, value in params.items()]
        return " ".join([f"trial {number}", *words])


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e") if value and abs(value) < 1e-2 else f"{value:.3g}"
