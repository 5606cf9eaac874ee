"""Reads a space as the user wrote it, and checks every part of it against the program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.config.document import KeyPath, kind_of
from tuner.config.experiment import Experiment
from tuner.config.schema import space_schema
from tuner.config.space_source import SpaceSource, read_space
from tuner.config.translate import checked, combined, explained
from tuner.config.words import got, listed
from tuner.contract import InputError, Parameter, Program
from tuner.error_text import nearest
from tuner.importing import Permission
from tuner.space.first import first_points, short_name
from tuner.space.function import Function, FunctionSpace
from tuner.space.parameters import KINDS, AnyParameter, Choice, Float, parents_first, shown
from tuner.space.settings import refused_by_settings
from tuner.space.space import Space, unknown_parameter

_KEYS = ("name", "description", "settings", "first", "parameters")


def load_space(
    spec: str | Mapping[str, Any] | SpaceSource,
    program: type[Program],
    base: Path | None = None,
    permission: Permission | None = None,
) -> Space | FunctionSpace:
    """Loads the space that `spec` names: a shipped one, a YAML file, `package.module:function` in the folder `base`, or
    a mapping. permission: which code of the user's own may be run; None: what the environment allows, and what is
    typed. Raises InputError.

    Knows of the program only its PARAMETERS and REFUSED; `experiment_space` also tries the values on the settings.
    """
    source = spec
    if not isinstance(source, SpaceSource):
        source = read_space(source, base or Path.cwd(), permission=permission or Permission.given(), typed=True)
    if source.function is not None:
        function = Function(source.function, source.source)
        if source.function.allowed:
            function.load()  # a misspelt name is told now, not at the first trial
        return FunctionSpace(source.name, function, program.PARAMETERS, program.REFUSED, source=source.source)
    return _read(source, program)


def experiment_space(experiment: Experiment) -> Space | FunctionSpace:
    """Loads the space of an experiment, and tries its extremes and their combinations on the experiment's settings.

    Raises InputError for what the program or its settings refuse."""
    program = experiment.program_class
    space = load_space(experiment.space, program)
    wanted = experiment.search
    if isinstance(space, Space) and not space.parameters and wanted.num_trials > 1 and wanted.seeds == 1:
        raise InputError(
            "search.space: nothing to search",
            where=space.source,
            expected="at least one parameter with its range, or search.num_trials: 1",
        )
    if experiment.search.sampler.kind == "grid":
        space.grid()
    if isinstance(space, Space):
        errors = refused_by_settings(space, experiment.settings, program, experiment.space)
        if errors:
            raise combined(errors)
    return space


def _read(source: SpaceSource, program: type[Program]) -> Space:
    data = source.data or {}
    unknown = [(str(key),) for key in data if key not in _KEYS]
    errors = explained(unknown, source.where, lambda key: _unknown_section(str(key[0]), source, program))
    for key in ("name", "description"):
        if not isinstance(data.get(key, ""), str):
            errors.append(
                InputError(f"{key}: got {got(data[key])}", where=source.where((key,)), expected="text in quotes")
            )
    written = data.get("parameters")
    if not isinstance(written, Mapping):
        what = "`parameters` is missing" if "parameters" not in data else f"parameters: got {kind_of(written)}"
        errors.append(
            InputError(what, where=source.where(("parameters",)), expected="at least one parameter with its range")
        )
        raise combined(errors)
    schema = space_schema(program.PARAMETERS)
    parameters: dict[str, AnyParameter] = {}
    strange: dict[KeyPath, str] = {}
    for key, given in written.items():
        name = short_name(str(key), program)
        where = source.where(("parameters", key))
        if name not in program.PARAMETERS:
            strange["parameters", key] = name
        elif name in parameters:
            errors.append(InputError(f"`{key}` and `{name}` are the same parameter", where=where))
        else:
            parameter, found = _parameter(str(key), given, source, schema)
            errors += found
            if parameter is not None:
                parameters[name] = parameter
                errors += _beyond(name, parameters[name], program.PARAMETERS[name], where)
    errors += explained(
        strange,
        source.where,
        lambda key: unknown_parameter(strange[key], program.PARAMETERS, program.REFUSED, source.where(key)),
    )
    parameters = {name: _conditions(parameter, parameters, program) for name, parameter in parameters.items()}
    first: tuple[dict[str, Any], ...] = ()
    if not errors:
        errors = _wrong_conditions(parameters, source, program)
        first, found = first_points(data.get("first"), parameters, source, program)
        errors += found
    if errors:
        raise combined(errors)
    return Space(
        name=source.name,
        parameters=parameters,
        description=str(data.get("description", "")).strip(),
        settings=dict(data.get("settings") or {}),
        first=first,
        source=source.source,
        path=source.path,
    )


def _unknown_section(key: str, source: SpaceSource, program: type[Program]) -> InputError:
    where = source.where((key,))
    if short_name(key, program) in program.PARAMETERS:
        return InputError(f"`{key}` stands beside `parameters:`", where=where, expected="it under `parameters:`")
    guess = nearest(key, _KEYS)
    what = f"unknown key `{key}` in the space"
    return InputError(
        f"{what}; did you mean `{guess}`?" if guess else what, where=where, expected=f"one of {listed(_KEYS)}"
    )


def _parameter(
    key: str, given: Any, source: SpaceSource, schema: Mapping[str, Any]
) -> tuple[AnyParameter | None, list[InputError]]:
    at: KeyPath = ("parameters", key)
    kind = given.get("type") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(kind, str) or kind not in KINDS:
        guess = nearest(kind, KINDS) if isinstance(kind, str) else None
        what = f"{key}.type: got {got(kind)}" if isinstance(given, Mapping) else f"{key}: got {got(given)}"
        if isinstance(given, Mapping) and "type" not in given:
            what = f"`{key}.type` is missing"
        return None, [
            InputError(
                f"{what}; did you mean `{guess}`?" if guess else what,
                where=source.where((*at, "type")),
                expected="{type: float, low: ..., high: ...}, type int or {type: choice, values: [...]}",
            )
        ]
    one = {"properties": {key: schema["$defs"][kind]}, "$defs": schema["$defs"]}
    return checked(KINDS[kind], {key: given}, one, lambda below: source.where(("parameters", *below)), at=(key,))


def _conditions(
    parameter: AnyParameter, parameters: Mapping[str, AnyParameter], program: type[Program]
) -> AnyParameter:
    """The parameter with short names in its `when`. A list in it that is itself a value of the parent counts as one
    value."""
    when: dict[str, tuple[Any, ...]] = {}
    for key, values in parameter.when.items():
        name = short_name(key, program)
        parent = parameters.get(name)
        one = isinstance(parent, Choice) and parent.contains(list(values))
        when[name] = (list(values),) if one else values
    return parameter.model_copy(update={"when": when})


def _beyond(name: str, parameter: AnyParameter, allowed: Parameter, where: str) -> list[InputError]:
    """The errors for a range or choices that the program does not take."""
    if not isinstance(parameter, Choice):
        if allowed.kind == "choice":
            wanted = f"{{type: choice, values: [{listed(map(shown, allowed.choices or ('...',)))}]}}"
            return [InputError(f"{name} is not a number", where=where, expected=wanted)]
        if allowed.kind == "int" and isinstance(parameter, Float):
            return [InputError(f"{name}: whole numbers only", where=where, expected="type int or choice")]
        low, high = allowed.low, allowed.high
        outside = (low is not None and parameter.low < low) or (high is not None and parameter.high > high)
        if outside:
            bounds = " and ".join(
                [f"at least {low:g}"] * (low is not None) + [f"at most {high:g}"] * (high is not None)
            )
            return [InputError(f"{name}: {parameter} goes too far", where=where, expected=bounds)]
    elif allowed.choices is not None:
        for value in parameter.options:
            if value not in allowed.choices:
                guess = nearest(value, map(str, allowed.choices)) if isinstance(value, str) else None
                what = f"{name}: got {got(value)}" + (f"; did you mean `{guess}`?" if guess else "")
                quoted = (
                    f'"{got(value)}" in quotes' if isinstance(value, bool) and got(value) in allowed.choices else ""
                )
                expected = f"one of {listed(map(shown, allowed.choices))}"
                return [InputError(what, where=where, expected=expected, remedy=quoted)]
    return []


def _wrong_conditions(
    parameters: Mapping[str, AnyParameter], source: SpaceSource, program: type[Program]
) -> list[InputError]:
    errors: list[InputError] = []
    for name, parameter in parameters.items():
        key = name if ("parameters", name) in source.places else program.PARAMETERS[name].path
        for parent, values in parameter.when.items():
            where = source.where(("parameters", key, "when"))
            if parent not in parameters:
                guess = nearest(parent, [other for other in parameters if other != name])
                what = f"{name}.when: `{parent}` is not searched in this space"
                errors.append(InputError(f"{what}; did you mean `{guess}`?" if guess else what, where=where))
            elif isinstance(parameters[parent], Float):
                errors.append(
                    InputError(
                        f"{name}.when: `{parent}` is continuous and never exactly a value",
                        where=where,
                        expected="a choice or an int as the condition",
                    )
                )
            else:
                never = [value for value in values if not parameters[parent].contains(value)]
                if never:
                    errors.append(
                        InputError(
                            f"{name}.when: `{parent}` is never {got(never[0])}",
                            where=where,
                            expected=str(parameters[parent]),
                        )
                    )
    if cycle := parents_first(parameters)[1]:
        errors.append(
            InputError(f"`when` goes round in a circle: {listed(cycle)}", where=source.where(("parameters", cycle[0])))
        )
    return errors
