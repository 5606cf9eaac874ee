"""A search space: parameters drawn in the order their conditions need, for optuna and for people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.config.words import listed, shortened
from tuner.contract import InputError, Parameter
from tuner.error_text import nearest
from tuner.space.parameters import AnyParameter, parents_first, shown

if TYPE_CHECKING:
    import optuna

MOST_POINTS = 100_000
"""The largest grid. A space with conditions is counted point by point, and no further than this."""


@dataclass(frozen=True)
class Recipe:
    """The recipe as a point of a space: trial 0."""

    params: Mapping[str, Any]
    """The recipe's values of the parameters that the space searches, where they lie inside their ranges. A value that
    is left out still holds in the trial, because a trial changes only what its params name; but the sampler must not be
    told of a value that it could never draw."""
    notes: tuple[str, ...] = ()
    """A sentence for the user on each value that is left out."""


@dataclass(frozen=True)
class Space:
    """Parameters by name, each a range or a choice, some of them only active under a condition."""

    name: str
    parameters: Mapping[str, AnyParameter]
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    first: tuple[Mapping[str, Any], ...] = ()
    """Points to try after the recipe: values by name of some of the parameters."""
    source: str = ""
    path: Path | None = None

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The names, parents before the parameters that depend on them."""
        return tuple(parents_first(self.parameters)[0])

    def suggest(self, trial: optuna.Trial, only: Collection[str] | None = None) -> dict[str, Any]:
        """Draws a point; `only` restricts the draw to some parameters (trial 0 names those of its recipe)."""
        drawn: dict[str, Any] = {}
        for name in self.order:
            if (only is None or name in only) and self.parameters[name].active(drawn):
                drawn[name] = self.parameters[name].suggest(trial, name)
        return drawn

    def upper_bound(self, name: str) -> float | None:
        """The largest number a trial can draw for `name`; None if it is not searched, or not a number."""
        return self.parameters[name].upper_bound() if name in self.parameters else None

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe's point among the active parameters; `values` are the recipe's settings by short name."""
        params: dict[str, Any] = {}
        notes: list[str] = []
        for name in self.order:
            parameter = self.parameters[name]
            if values.get(name) is None or not parameter.active(values):
                continue
            if any(parent not in params for parent in parameter.when):
                continue  # its parent was left out, so optuna would never ask for this one
            if parameter.contains(values[name]):
                params[name] = values[name]
            else:
                notes.append(f"the recipe's {name} {shown(values[name])} is outside the space ({parameter})")
        return Recipe(params, tuple(notes))

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Params as optuna stores them: lists become labels."""
        return {name: self.parameters[name].encode(value) for name, value in params.items() if name in self.parameters}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The `trial.params` of a stored trial as the program takes them: labels become lists again."""
        return {
            name: self.parameters[name].decode(value) if name in self.parameters else value
            for name, value in params.items()
        }

    @property
    def is_finite(self) -> bool:
        """Whether no parameter is continuous."""
        return all(parameter.count() is not None for parameter in self.parameters.values())

    @property
    def continuous(self) -> tuple[str, ...]:
        """The names of the continuous parameters: a float without a step."""
        return tuple(name for name, parameter in self.parameters.items() if parameter.count() is None)

    @cached_property
    def size(self) -> int | None:
        """The number of different points; None if a parameter is continuous, or with conditions if there are more than
        MOST_POINTS."""
        if not self.is_finite:
            return None
        if not any(parameter.when for parameter in self.parameters.values()):
            return math.prod(parameter.count() or 0 for parameter in self.parameters.values())
        points = sum(1 for _ in itertools.islice(self.points(), MOST_POINTS + 1))
        return points if points <= MOST_POINTS else None

    def points(self, extremes: bool = False) -> Iterator[dict[str, Any]]:
        """Every point in turn; with `extremes`, every combination of choices and ends of ranges."""

        def below(index: int, drawn: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if index == len(self.order):
                yield drawn
                return
            name = self.order[index]
            parameter = self.parameters[name]
            if not parameter.active(drawn):
                yield from below(index + 1, drawn)
                return
            for value in (parameter.extremes() if extremes else parameter.values()) or ():
                yield from below(index + 1, {**drawn, name: value})

        return below(0, {})

    def grid(self) -> list[dict[str, Any]]:
        """Every point, as optuna stores it. Raises InputError where a parameter is continuous, or for more than
        MOST_POINTS."""
        if self.continuous or self.size is None or self.size > MOST_POINTS:
            what = f"`{self.continuous[0]}` is continuous" if self.continuous else f"it has over {MOST_POINTS:,} points"
            raise InputError(
                f"search.sampler: grid cannot search {self.name}: {what}",
                where=self.source,
                expected="choices, ints and floats with a step",
                remedy="sampler tpe, or a `step` or `choice` for that parameter",
            )
        return [self.encode(point) for point in self.points()]

    def describe(self) -> list[dict[str, str]]:
        """A row of text for each parameter: name, type, range, when."""
        return [
            {
                "name": name,
                "type": parameter.type,
                "range": str(parameter),
                "when": " and ".join(
                    f"{parent} = {' | '.join(shown(value) for value in values)}"
                    for parent, values in parameter.when.items()
                ),
            }
            for name, parameter in self.parameters.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """The space as it could be written in YAML, with all defaults left out."""
        return {
            "name": self.name,
            **({"description": self.description} if self.description else {}),
            **({"settings": dict(self.settings)} if self.settings else {}),
            **({"first": [dict(point) for point in self.first]} if self.first else {}),
            "parameters": {
                name: {"type": parameter.type, **_written(parameter)} for name, parameter in self.parameters.items()
            },
        }


def unknown_parameter(name: str, known: Mapping[str, Parameter], refused: Mapping[str, str], where: str) -> InputError:
    """The error for a parameter that a program does not let a search vary."""
    short, told = name.rpartition(".")[2], shortened(name)
    if name in refused or short in refused:
        return InputError(f"`{told}` cannot be searched: {refused.get(name) or refused[short]}", where=where)
    guess = nearest(short, known)
    if guess:
        return InputError(f"unknown parameter `{told}`; did you mean `{guess}`?", where=where)
    return InputError(f"unknown parameter `{told}`", where=where, expected=f"one of {listed(sorted(known))}")


def _written(parameter: AnyParameter) -> dict[str, Any]:
    dumped = parameter.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"type", "when"})
    return (
        {**dumped, "when": {name: list(values) for name, values in parameter.when.items()}}
        if parameter.when
        else dumped
    )
