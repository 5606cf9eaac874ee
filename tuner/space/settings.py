"""Lays a point of a space over the program's settings, and asks the program's own validation about the result."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tuner.config.document import KeyPath
from tuner.config.schema import experiment_schema
from tuner.config.space_source import SpaceSource
from tuner.config.translate import translated
from tuner.config.words import dotted
from tuner.contract import InputError, Program, laid
from tuner.space.parameters import shown
from tuner.space.space import Space

MOST_POINTS = 256
"""Points tried on the program's settings: at about 0.4 ms each, a tenth of a second at most."""


def recipe_values(settings: BaseModel, program: type[Program]) -> dict[str, Any]:
    """The settings' own values of everything that can be searched, by short name."""
    dumped = settings.model_dump()
    values: dict[str, Any] = {}
    for name, parameter in program.PARAMETERS.items():
        value: Any = dumped
        for part in parameter.path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        values[name] = value
    return values


def with_params(settings: BaseModel, params: Mapping[str, Any], program: type[Program]) -> Any:
    """The settings with a trial's params in place, validated; raises InputError or pydantic's ValidationError."""
    return program.with_params(settings, params)


def refused_by_settings(
    space: Space, settings: BaseModel, program: type[Program], source: SpaceSource
) -> list[InputError]:
    """The errors with which the program refuses points of the space, each with the fewest params that cause it.

    Tried are combinations of choices and of the ends of ranges: all of them, or a fixed sample where they are many.
    """
    schema = experiment_schema(program)

    def findings(point: Mapping[str, Any]) -> dict[str, InputError]:
        try:
            with_params(settings, point, program)
        except InputError as error:
            return {error.what: InputError(error.what, where=source.where(("parameters",)), expected=error.expected)}
        except ValidationError as error:
            data = laid(settings, point, program.PARAMETERS)
            found = translated(error, data, schema, lambda key: source.where(_written_at(key, program, source)))
            return {one.what: one for one in found}
        return {}

    errors: dict[str, InputError] = {}
    for point in _extreme_points(space):
        for what, error in findings(point).items():
            if what not in errors:
                fewest = dict(point)
                for name in point:
                    fewer = {other: value for other, value in fewest.items() if other != name}
                    fewest = fewer if what in findings(fewer) else fewest
                with_these = ", ".join(f"{name}={shown(value)}" for name, value in fewest.items())
                errors[what] = InputError(
                    f"a trial with {with_these} is not valid: {what}", where=error.where, expected=error.expected
                )
    return list(errors.values())


def _extreme_points(space: Space) -> Iterator[dict[str, Any]]:
    points = list(itertools.islice(space.points(extremes=True), MOST_POINTS + 1))
    if len(points) <= MOST_POINTS:
        yield from points
        return
    # Too many to try all, and the first ones differ in the last parameters only.
    chance = random.Random(0)  # noqa: S311  a fixed sample is the point
    for _ in range(MOST_POINTS):
        drawn: dict[str, Any] = {}
        for name in space.order:
            if space.parameters[name].active(drawn):
                drawn[name] = chance.choice(space.parameters[name].extremes())
        yield drawn


def _written_at(key: KeyPath, program: type[Program], source: SpaceSource) -> KeyPath:
    """Where the space writes the parameter that a settings key belongs to."""
    for name, parameter in program.PARAMETERS.items():
        if parameter.path == dotted(key):
            written = [("parameters", spelt) for spelt in (name, parameter.path)]
            return next((at for at in written if at in source.places), ("parameters",))
    return ("parameters",)
