"""Finds a program by its name, and adapts a class that does not derive from `Program`.

Programs of version 0.1 derive from no base class and have only the hooks that they use. Here such a class gets the base
`Program`, and with it the default of every hook that it lacks. An engine without `refuses` gets one that refuses
nothing.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.contract.engine import PackedEngine, SlotChoice
from tuner.contract.errors import Fault, InputError
from tuner.contract.facts import Assignment, Evaluation, Setup
from tuner.contract.program import Program

PROGRAMS = {"sft": "trainables.sft:SFT"}
"""The programs that have a short name, each as "package.module:Class"."""


def load_program(name: str) -> type[Program]:
    """The program class called `name`: a key of PROGRAMS or "package.module:Class". Raises InputError where there is
    none, or where it is no class."""
    target = PROGRAMS.get(name, name)
    module, _, attribute = target.partition(":")
    try:
        return as_program(getattr(importlib.import_module(module), attribute))
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise InputError(
            f"no program {name!r} ({error})",
            where="run.program",
            expected=f"one of {', '.join(PROGRAMS)}, or package.module:Class",
        ) from error


@functools.cache
def as_program(found: type[Any]) -> type[Program]:
    """Returns `found` where it derives from Program; else a class that derives from both and has the same name, the
    same class at every call. Raises TypeError where `found` is no class, or one that takes no other base."""
    if not isinstance(found, type):
        raise TypeError(f"{found!r} is not a class")
    if issubclass(found, Program):
        return found
    about = {"__module__": found.__module__, "__qualname__": found.__qualname__, "__doc__": found.__doc__}
    return type(found.__name__, (found, Baseless), about)


class Baseless(Program):
    """The base that a class without one gets. Beside the defaults it reads two settings that version 0.1 read of every
    program: `train.eval_steps` and `model.trust_remote_code`."""

    @classmethod
    def eval_every(cls, settings: Any) -> float:
        train = settings.model_dump().get("train")
        every = train.get("eval_steps") if isinstance(train, Mapping) else None
        return every or super().eval_every(settings)

    @classmethod
    def foreign_code(cls, settings: Mapping[str, Any]) -> str:
        model = settings.get("model")
        trusts = isinstance(model, Mapping) and model.get("trust_remote_code")
        return "code that comes with the base" if trusts else super().foreign_code(settings)


def as_engine(made: Any) -> PackedEngine:
    """Returns the engine that `pack` made, wrapped where it has no `refuses`."""
    return made if isinstance(made, PackedEngine) else _Unrefusing(made)


class _Unrefusing:
    """Wraps an engine without `refuses`: it refuses nothing."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @property
    def busy(self) -> bool:
        return self._engine.busy

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> SlotChoice:
        return self._engine.choose(wanted, heaviest, measure=measure, beside=beside)

    def refuses(self, params: Mapping[str, Any]) -> str | None:
        return None

    def join(self, slot: int, assignment: Assignment) -> Setup:
        return self._engine.join(slot, assignment)

    def advance(self, limit: int | None = None) -> Sequence[tuple[int, Evaluation | Fault]]:
        return self._engine.advance(limit=limit)

    def confirm(self, slot: int) -> None:
        self._engine.confirm(slot)

    def leave(self, slot: int) -> None:
        self._engine.leave(slot)
