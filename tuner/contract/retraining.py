"""What a program says of training one point again: longer, or on from its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Retraining:
    """How a point is trained again."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """The settings that become others, by dotted name."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: what stays as it was, and what scales with the length."""
