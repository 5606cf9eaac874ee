"""A point that a person suggests to a running search, checked against its space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tuner.config.words import listed
from tuner.contract import InputError, Program
from tuner.error_text import nearest
from tuner.space.function import FunctionSpace, RecipeTrial
from tuner.space.parameters import shown
from tuner.space.settings import recipe_values, with_params
from tuner.space.space import Space


def own_point(
    space: Space | FunctionSpace,
    given: Mapping[str, Any],
    like: Mapping[str, Any],
    settings: BaseModel,
    program: type[Program],
) -> dict[str, Any]:
    """The values that a suggestion fixes: those `given`, and beside them those of the trial that it is to be like.

    The sampler draws the parameters that are in neither. given: by short name, or by path in the settings
    (`train.lora_r`). like: that trial's values; {} for none. Raises InputError for a name that the space does not
    search, a value outside its range, and a parameter whose condition the point does not meet.
    """
    by_path = {parameter.path: name for name, parameter in program.PARAMETERS.items()}
    named = {by_path.get(name, name): value for name, value in given.items()}
    if isinstance(space, Space):
        point = _of_space(space, named, like)
    else:
        point = _of_function(space, named, like, recipe_values(settings, program))
    try:
        with_params(settings, point, program)
    except ValidationError as error:
        what = "; ".join(str(found["msg"]) for found in error.errors())
        raise InputError(f"a trial with {_told(point)} is not valid: {what}", where="--set") from error
    return point


def _of_space(space: Space, named: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    for name in named:
        if name not in space.parameters:
            raise _not_searched(name, space.order, space.name)
    wanted, point = {**like, **named}, dict[str, Any]()
    for name in space.order:
        parameter = space.parameters[name]
        if name not in wanted:
            continue
        if not parameter.active(point):
            if name in named:
                needs = " and ".join(
                    f"{parent} = {' | '.join(shown(value) for value in values)}"
                    for parent, values in parameter.when.items()
                )
                raise InputError(
                    f"`{name}` is searched only where {needs}",
                    where=f"--set {name}={shown(named[name])}",
                    remedy=f"set {listed(list(parameter.when))} as well, or take over a trial's values with --like",
                )
            continue
        if not parameter.contains(wanted[name]):
            raise InputError(
                f"{name}: {shown(wanted[name])} is outside the space",
                where=f"--set {name}={shown(wanted[name])}",
                expected=str(parameter),
            )
        point[name] = wanted[name]
    return point


def _of_function(
    space: FunctionSpace, named: Mapping[str, Any], like: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """What a function draws shows only in a call: it is called once, with these values and the recipe's for the
    rest."""
    told = RecipeTrial({**recipe, **like, **named})
    space.suggest(told)
    for name in named:
        if name in told.outside:
            raise InputError(
                f"{name}: {shown(named[name])} is outside the space",
                where=f"--set {name}={shown(named[name])}",
                expected=f"a value that {space.target} can draw",
            )
        if name not in told.params:
            raise _not_searched(name, told.params, space.name)
    return {name: value for name, value in {**like, **named}.items() if name in told.params}


def _not_searched(name: str, known: Any, space: str) -> InputError:
    guess = nearest(name, known)
    if guess:
        return InputError(f"the space {space} has no parameter `{name}`; did you mean `{guess}`?", where="--set")
    return InputError(
        f"the space {space} has no parameter `{name}`", where="--set", expected=f"one of {listed(sorted(known))}"
    )


def _told(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in point.items())
