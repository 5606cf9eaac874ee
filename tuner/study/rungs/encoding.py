"""Parameters as coordinates in [0, 1], as the model measures distances between configurations."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

ABSENT = -1.0
"""The coordinate of a parameter whose condition does not hold."""

_APART = math.sqrt(0.9)
"""How far absence lies from the middle of a range: its squared distance to a value is then 0.9 to 1.15."""

_HALF = math.sqrt(0.5)
"""What each category has in a dimension of its own, so that two are 1 apart."""

Conditions = Mapping[str, Mapping[str, Collection[Any]]]
"""By parameter: the values of other parameters, as Optuna stores them, with which alone it is there."""


class Axis:
    """One parameter. Ranges and choices of numbers have an order, other choices are categories."""

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self.choices: tuple[Any, ...] = ()
        """The values of a choice, as Optuna has them; none for a range."""
        self.places = numpy.zeros(0)
        """[choices]: the coordinate of each choice."""
        if isinstance(distribution, CategoricalDistribution):
            self.choices = tuple(distribution.choices)
            self.places = _places(self.choices)
        self._place_of = {(c, isinstance(c, bool)): float(p) for c, p in zip(self.choices, self.places, strict=True)}
        self.ordered = not self.choices or _are_numbers(self.choices)
        """Whether near coordinates are near values."""
        self.log = isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log
        count = len(self.choices) or _count(distribution)
        self.count: int | None = count
        """How many values there are; None for a continuous range."""
        self._low, self._width = 0.0, 1.0
        if isinstance(distribution, FloatDistribution | IntDistribution):
            low, high = (math.log(end) if self.log else float(end) for end in (distribution.low, distribution.high))
            self._low, self._width = low, high - low

    def coordinate(self, value: Any) -> float:
        """The coordinate of a value: in [0, 1], or the number of a category. Raises KeyError, TypeError or ValueError
        for what is no value of the parameter."""
        if self.choices:
            return self._place_of[value, isinstance(value, bool)]
        place = ((math.log(value) if self.log else value) - self._low) / self._width
        return min(max(place, 0.0), 1.0)

    def value(self, coordinate: float) -> Any:
        """The value at a coordinate, as Optuna stores it."""
        if self.choices:
            return self.choices[int(numpy.abs(self.places - coordinate).argmin())]
        found = self._low + coordinate * self._width
        found = math.exp(found) if self.log else found
        d = self.distribution
        assert isinstance(d, FloatDistribution | IntDistribution)
        if d.step is not None and not self.log:
            found = d.low + round((found - d.low) / d.step) * d.step
        found = min(max(found, d.low), d.high)
        return round(found) if isinstance(d, IntDistribution) else float(found)

    def from_uniform(self, uniform: numpy.ndarray) -> numpy.ndarray:
        """Coordinates [n] that values drawn with equal chances have. uniform: [n], in [0, 1)."""
        if self.choices:
            return self.places[(uniform * len(self.choices)).astype(int)]
        return self.rounded(uniform)

    def rounded(self, coordinates: numpy.ndarray) -> numpy.ndarray:
        """The nearest coordinates [n] that a value has."""
        if self.choices:
            return self.places[numpy.abs(coordinates[:, None] - self.places).argmin(1)]
        inside = numpy.clip(coordinates, 0.0, 1.0)
        if self.count is None or self.count > 1000:
            return inside
        return numpy.array([self.coordinate(self.value(c)) for c in inside])


class Encoding:
    """All parameters of a study as the columns of a matrix, in order of their names.

    conditions: when a parameter is there; None: learnt from the trials, for each parameter that some of them lack.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], conditions: Conditions | None = None) -> None:
        self.axes = {name: Axis(space[name]) for name in sorted(space) if not space[name].single()}
        self.names = tuple(self.axes)
        self.ordered = numpy.array([axis.ordered for axis in self.axes.values()], bool)
        """[parameters]: whether a column has an order."""
        self._conditions = {} if conditions is None else dict(conditions)
        self._fixed = {name: d for name, d in space.items() if d.single()}

    @property
    def is_finite(self) -> bool:
        """Whether there are finitely many configurations."""
        return all(axis.count is not None for axis in self.axes.values())

    def encode(self, params: Mapping[str, Any]) -> numpy.ndarray:
        """A configuration as a row [parameters]; `ABSENT` where a parameter is not there."""
        return numpy.array(
            [axis.coordinate(params[name]) if name in params else ABSENT for name, axis in self.axes.items()]
        )

    def decode(self, row: numpy.ndarray) -> dict[str, Any]:
        """A row [parameters] as the values that Optuna stores, without parameters that are not there."""
        return {
            name: axis.value(float(c)) for (name, axis), c in zip(self.axes.items(), row, strict=True) if c != ABSENT
        }

    def find(self, params: Mapping[str, Any]) -> numpy.ndarray | None:
        """As `encode`; None where a value has no coordinate, or nothing is in it that has one: a space may have been
        changed."""
        try:
            return self.encode(params) if any(name in params for name in self.names) else None
        except (KeyError, TypeError, ValueError):
            return None

    def features(self, rows: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Configurations [n, parameters] as points [n, features] whose squared distances the model takes, and the
        parameter of each feature, [features].

        Two categories are 1 apart, as is, about, a value from the absence of its parameter.
        """
        columns, owners = [], []
        for index, axis in enumerate(self.axes.values()):
            column = rows[:, index]
            there = column != ABSENT
            if axis.ordered:
                own = [numpy.where(there, column, 0.5)]
                own += [] if self.names[index] not in self._conditions else [numpy.where(there, 0.0, _APART)]
            else:
                places = [*axis.places, ABSENT]
                own = [(column == place) * _HALF for place in places]
            columns += own
            owners += [index] * len(own)
        return numpy.stack(columns, 1).astype(float), numpy.array(owners)

    def from_uniform(self, uniform: numpy.ndarray) -> numpy.ndarray:
        """Configurations [n, parameters] from numbers [n, parameters] in [0, 1)."""
        columns = [axis.from_uniform(uniform[:, index]) for index, axis in enumerate(self.axes.values())]
        return self.conditioned(numpy.stack(columns, 1) if columns else uniform)

    def rounded(self, rows: numpy.ndarray) -> numpy.ndarray:
        """The nearest configurations [n, parameters]; a parameter that was absent stays so only where it must be."""
        columns = []
        for index, axis in enumerate(self.axes.values()):
            column = rows[:, index]
            columns.append(axis.rounded(numpy.where(column == ABSENT, 0.5, column)))
        return self.conditioned(numpy.stack(columns, 1))

    def conditioned(self, rows: numpy.ndarray) -> numpy.ndarray:
        """Writes `ABSENT` where a parameter's condition does not hold. rows: [n, parameters], changed in place."""
        for name in self._in_order():
            index = self.names.index(name)
            for parent, values in self._conditions[name].items():
                if parent in self.axes:
                    axis, column = self.axes[parent], rows[:, self.names.index(parent)]
                    allowed = [axis.coordinate(v) for v in values if _has(axis, v)]
                    holds = (numpy.abs(column[:, None] - numpy.array([*allowed, math.inf])) < 1e-9).any(1)
                    rows[~holds, index] = ABSENT
                elif parent in self._fixed and not self._fixed[parent]._contains(
                    self._fixed[parent].to_internal_repr(next(iter(values)))
                ):
                    rows[:, index] = ABSENT
        return rows

    def learn_conditions(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Learns when a parameter is there from the configurations of trials: the one choice whose values tell those
        that have it from those that lack it. A parameter with no such choice counts as always there."""
        for name in self.names:
            if name in self._conditions or all(name in point for point in points):
                continue
            for parent, axis in self.axes.items():
                if parent == name or axis.count is None:
                    continue
                with_it = {point[parent] for point in points if parent in point and name in point}
                without = {point[parent] for point in points if parent in point and name not in point}
                if with_it and without and not with_it & without:
                    unseen = [v for v in axis.choices if v not in without]
                    self._conditions[name] = {parent: {*with_it, *unseen}}
                    break

    def _in_order(self) -> list[str]:
        """The parameters with conditions, parents before children."""
        order: list[str] = []
        left = [name for name in self.names if name in self._conditions]
        while ready := [n for n in left if not any(parent in left for parent in self._conditions[n])]:
            order += ready
            left = [n for n in left if n not in ready]
        return order + left


def _are_numbers(choices: Sequence[Any]) -> bool:
    return len(choices) > 1 and all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)


def _places(choices: Sequence[Any]) -> numpy.ndarray:
    """The coordinate of each choice: numbers lie evenly on a linear or a logarithmic scale, whichever is more even;
    other choices have their place in the list."""
    if not _are_numbers(choices):
        return numpy.arange(len(choices), dtype=float)
    numbers = numpy.array(choices, float)
    if numbers.min() > 0 and numbers.max() >= 4 * numbers.min():
        numbers = numpy.log(numbers)
    return (numbers - numbers.min()) / (numbers.max() - numbers.min())


def _has(axis: Axis, value: Any) -> bool:
    try:
        axis.coordinate(value)
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _count(distribution: BaseDistribution) -> int | None:
    d = distribution
    if isinstance(d, IntDistribution):
        return (d.high - d.low) // d.step + 1
    if isinstance(d, FloatDistribution) and d.step is not None:
        return round((d.high - d.low) / d.step) + 1
    return None
