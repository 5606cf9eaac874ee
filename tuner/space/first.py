"""The points that a space names to be tried first, after the recipe: what published sweeps found, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.config.document import kind_of
from tuner.config.space_source import SpaceSource
from tuner.config.words import got, listed
from tuner.contract import InputError, Program
from tuner.error_text import nearest
from tuner.space.parameters import AnyParameter, parents_first

_EXPECTED = "a list of points, each {parameter: value}"


def first_points(
    given: Any, parameters: Mapping[str, AnyParameter], source: SpaceSource, program: type[Program]
) -> tuple[tuple[dict[str, Any], ...], list[InputError]]:
    """The points by short names, and an error for each value that the space does not have."""
    if given is None:
        return (), []
    if not isinstance(given, list):
        return (), [InputError(f"first: got {kind_of(given)}", where=source.where(("first",)), expected=_EXPECTED)]
    points, errors = [], []
    for number, written in enumerate(given):
        if not isinstance(written, Mapping) or not written:
            where = source.where(("first", number))
            errors.append(InputError(f"first[{number}]: got {got(written)}", where=where, expected=_EXPECTED))
            continue
        point = {}
        for key, value in written.items():
            name, where = short_name(str(key), program), source.where(("first", number, key))
            if name not in parameters:
                guess = nearest(name, parameters)
                what = f"first[{number}]: `{key}` is not searched in this space"
                what += f"; did you mean `{guess}`?" if guess else ""
                errors.append(InputError(what, where=where, expected=f"one of {listed(parameters)}"))
            elif not parameters[name].contains(value):
                what = f"first[{number}].{name}: {got(value)} is outside the space"
                errors.append(InputError(what, where=where, expected=str(parameters[name])))
            else:
                point[name] = value
        points.append(point)
    return tuple(points), errors


def short_name(name: str, program: type[Program]) -> str:
    """The short name of a parameter that may be written by its path: `lora_r` for `train.lora_r`."""
    return next((short for short, parameter in program.PARAMETERS.items() if parameter.path == name), name)


def laid_over(
    recipe: Mapping[str, Any], first: tuple[Mapping[str, Any], ...], parameters: Mapping[str, AnyParameter]
) -> list[dict[str, Any]]:
    """The points with the recipe's values for what they leave out, without what their conditions leave out; none twice,
    and none that is the recipe itself."""
    order = parents_first(parameters)[0]
    points: list[dict[str, Any]] = []
    for given in first:
        wanted, point = {**recipe, **given}, dict[str, Any]()
        for name in order:
            if name in wanted and parameters[name].active(point):
                point[name] = wanted[name]
        if point != dict(recipe) and point not in points:
            points.append(point)
    return points
