"""Counts trainable and total parameters, in 4-bit weights too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Count:
    """Counts of parameters."""

    trainable: int
    """Those that a trial trains."""
    total: int
    """All of them, adapter included."""

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total if self.total else 0.0
        return f"{human(self.trainable)} of {human(self.total)}, {share:.2g}%"


def count(model: Any) -> Count:
    """Counts the parameters of a model. A byte of a 4-bit tensor holds two; tied tensors count once."""
    trainable = total = 0
    for parameter in model.parameters():
        total += size(parameter)
        trainable += size(parameter) if parameter.requires_grad else 0
    return Count(trainable, total)


def size(parameter: Any) -> int:
    """The number of values of a parameter [...]."""
    values: int = parameter.numel()
    if type(parameter).__name__ == "Params4bit" and getattr(parameter, "quant_state", None) is not None:
        values *= 2 * parameter.element_size()
    return values


def human(number: int) -> str:
    """A number for people: 161.5M, 8.2B, 940."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
