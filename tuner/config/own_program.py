"""Finds and checks the program that `run.program` names: a shipped one, or a class of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tuner.blame import theirs
from tuner.config.layers import Origin
from tuner.config.words import got, listed
from tuner.contract import PROGRAMS, InputError, Parameter, Program, as_program, load_program
from tuner.guest import Failed, Guest
from tuner.importing import Own, Permission, find, load

KEY = "run.program"
_EXPECTED = "a class with the attributes of tuner.contract.Program"
_REMEDY = "mend it, and say the command again"
_SHIPPED = {*PROGRAMS, *PROGRAMS.values()}
_ATTRIBUTES = ("Settings", "PARAMETERS", "REFUSED")
_METHODS = ("budget", "prepare", "start", "step", "stop")


def read_program(name: Any, origin: Origin, permission: Permission) -> tuple[type[Program], Own | None]:
    """The class that `name` names, and where its code is; None for a shipped program.

    origin: where it was named. Raises InputError if there is no such program, if it may not be run, if its import
    fails, hangs or exits, and if the class is no program.
    """
    if not isinstance(name, str):
        expected = f"{listed(PROGRAMS)}, or package.module:Class"
        raise InputError(f"{KEY}: not text", where=origin.where, expected=expected)
    if name in _SHIPPED:
        return load_program(name), None
    if ":" not in name:
        expected = f"{listed(PROGRAMS)}, or package.module:Class"
        raise InputError(f"no program {name!r}", where=origin.where, expected=expected)
    where, home = origin.where, origin.base
    own = find(name, key=KEY, where=where, home=home, permission=permission, typed=origin.typed)
    if not own.allowed:
        raise own.not_run(KEY, where)
    found = _tried(own, where)
    if wrong := _wrong(found):
        what = f"{KEY}: {own} is no program: {'; '.join(wrong)}"
        raise InputError(what, where=where, expected=_EXPECTED)
    return as_program(found), own


def find_allowed(program: str, where: str, modules: Sequence[str]) -> list[Own]:
    """Finds, on this machine, the code of the user's own that a search on a cluster runs.

    program: as the cluster names it. modules: those that the user named on this machine's command line. Raises
    InputError if the program is neither a shipped one nor in one of them.
    """
    permission, home = Permission.given(modules, beside=False), Path.cwd()
    code = [
        find(f"{module}:module", key="--allow-module", where=where, home=home, permission=permission)
        for module in modules
    ]
    if program not in _SHIPPED:
        own = find(program, key=KEY, where=where, home=home, permission=permission)
        if not own.allowed:
            raise own.not_run(KEY, where)
        code.append(own)
    return code


def typed_program(name: str, flag: str, permission: Permission) -> type[Program]:
    """The program that was named on the command line with `flag`. Raises InputError as `read_program` does."""
    return read_program(name, Origin(flag, Path.cwd(), typed=True), permission)[0]


def _tried(own: Own, where: str) -> Any:
    """The class, imported. It is imported in a process of its own first: a module can hang, exit, or crash its
    process."""
    if own.module not in sys.modules:
        try:
            Guest(own, "class").close()
        except Failed as failed:
            subject = f"{KEY}: {own}"
            raise failed.trouble.error(subject, where=where, expected=_EXPECTED, remedy=_REMEDY) from None
    with theirs(f"{KEY}: {own}", own.wrote, where=where, expected=_EXPECTED, remedy=_REMEDY):
        found = load(own)
    if found is None:
        raise InputError(f"{KEY}: {own} is not there", where=where, expected=_EXPECTED)
    return found


def _wrong(found: Any) -> list[str]:
    """Every reason why it is no program."""
    if not isinstance(found, type):
        return [f"it is not a class ({type(found).__name__})"]
    try:
        program = as_program(found)
    except TypeError as error:
        return [f"it does not take the base tuner.contract.Program: {error}"]
    there, bodiless = set(dir(found)), program.__abstractmethods__
    lacking = [name for name in _ATTRIBUTES if name not in there]
    lacking += [name for name in _METHODS if name in bodiless and name not in vars(found)]
    wrong = [f"it has no {listed(lacking)}"] if lacking else []
    methods = (program.budget, program.prepare, program.start, program.step, program.stop)
    wrong += [f"`{name}` is not a method" for name, own in zip(_METHODS, methods, strict=True) if not callable(own)]
    if others := sorted(bodiless.difference(lacking)):
        wrong.append(f"it is abstract: {listed(others)} without a body")
    if "Settings" in there and not (isinstance(program.Settings, type) and issubclass(program.Settings, BaseModel)):
        wrong.append(f"Settings is {got(program.Settings)}, and not a pydantic model")
    parameters = program.PARAMETERS if "PARAMETERS" in there else {}
    for name, value in (("PARAMETERS", parameters), ("REFUSED", program.REFUSED if "REFUSED" in there else {})):
        if not isinstance(value, Mapping):
            wrong.append(f"{name} is {got(value)}, and not a mapping")
    if isinstance(parameters, Mapping):
        wrong += [f"PARAMETERS[{key!r}]: {fault}" for key, value in parameters.items() if (fault := _odd(value))]
    return wrong


def _odd(parameter: Any) -> str:
    """What is wrong with a parameter; empty if nothing is."""
    if not isinstance(parameter, Parameter):
        return f"{got(parameter)}, and not a tuner.contract.Parameter"
    if parameter.kind not in ("float", "int", "choice"):
        return f"kind {parameter.kind!r}, and not float, int or choice"
    low, high = parameter.low, parameter.high
    return f"low {low:g} above high {high:g}" if low is not None and high is not None and low > high else ""
