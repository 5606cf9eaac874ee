"""A number that a search makes better: its name, and which way is better."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MOST_WORDS = 64
"""Characters of a label."""


@dataclass(frozen=True)
class Objective:
    """One number that a program measures at every evaluation.

    Every comparison of values in the driver is made here, so that nothing else has to know the direction. Raises
    ValueError for a name, a label or a direction that cannot be one.
    """

    name: str
    """Its key in `Evaluation.metrics`, in the ledger, in `--json` and in trackers ("eval_loss")."""
    label: str = ""
    """What tables and sentences call it ("validation loss"); the name where it is empty."""
    direction: Literal["minimize", "maximize"] = "minimize"
    """Which way is better, in Optuna's words."""
    short: str = ""
    """What it is called where it is clear which objective is meant ("loss"); the label where it is empty."""
    measured: Literal["always", "end"] = "always"
    """When a trial has it: at every evaluation, or only at its end. A search that makes the latter better compares
    trials, while they run, by the first objective that they always have."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            told = "letters, digits and '_', at most 64, beginning with a letter"
            raise ValueError(f"name must be {told} but got {self.name!r:.100}.")
        for text in (self.label, self.short):
            if not isinstance(text, str) or len(text) > _MOST_WORDS or not text.isprintable():
                raise ValueError(f"label must be text of at most {_MOST_WORDS} characters but got {text!r:.100}.")
        if self.direction not in ("minimize", "maximize"):
            raise ValueError(f"direction must be 'minimize' or 'maximize' but got {self.direction!r:.100}.")
        if self.measured not in ("always", "end"):
            raise ValueError(f"measured must be 'always' or 'end' but got {self.measured!r:.100}.")

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Objective:
        """Reads what `to_dict` returned, and ignores other keys. Raises ValueError."""
        direction = given.get("direction", "minimize")
        measured = given.get("measured", "always")
        return cls(given.get("name", ""), given.get("label", ""), direction, given.get("short", ""), measured)

    def to_dict(self) -> dict[str, str]:
        """All of it as JSON; `measured` where it is not "always"."""
        return {key: value for key, value in asdict(self).items() if key != "measured" or value != "always"}

    @property
    def title(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.heading

    @property
    def noun(self) -> str:
        """The short word, or the title where there is none."""
        return self.short or self.title

    @property
    def heading(self) -> str:
        """The name as the heading of a table's column ("eval loss")."""
        return self.name.replace("_", " ")

    @property
    def falls(self) -> bool:
        """Whether a smaller value is better."""
        return self.direction == "minimize"

    def cost(self, value: float) -> float:
        """The value with the sign with which smaller is better; the cost of a cost is the value."""
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

    def best_of(self, values: Iterable[float | None]) -> float | None:
        """The best finite value; None where there is none."""
        return self.best((v for v in values if v is not None and math.isfinite(v)), lambda v: v)

    def gain(self, value: float, base: float) -> float | None:
        """How much better `value` is than `base`, as a share of the size of `base` (0.053 is 5.3% better); negative
        where it is worse. None where `base` is 0: nothing is a share of that."""
        return self.cost(base - value) / abs(base) if base else None


EVAL_LOSS = Objective("eval_loss", "validation loss", short="loss")
"""The objective of a program that names none, and of a ledger that names none: version 0.1 knew this one."""


def checked_objectives(objectives: Any) -> tuple[Objective, ...]:
    """The objectives of a program, the one that a search makes better first. Raises ValueError where there is none,
    where two have one name, or where one is no Objective."""
    if not isinstance(objectives, list | tuple) or not objectives:
        raise ValueError(f"OBJECTIVES must be one Objective or more but got {objectives!r:.100}.")
    for objective in objectives:
        if not isinstance(objective, Objective):
            raise ValueError(f"OBJECTIVES must hold Objectives but got {objective!r:.100}.")
    names = [objective.name for objective in objectives]
    if len(set(names)) < len(names):
        raise ValueError(f"OBJECTIVES must have names of their own but got {', '.join(names)}.")
    if all(objective.measured == "end" for objective in objectives):
        raise ValueError("one of OBJECTIVES must be measured at every evaluation.")
    return tuple(objectives)


def compared_by(objectives: Iterable[Objective]) -> Objective:
    """What trials are compared by while they run: the first objective that is measured at every evaluation. Raises
    ValueError where there is none."""
    for objective in objectives:
        if objective.measured == "always":
            return objective
    raise ValueError("no objective is measured at every evaluation")
