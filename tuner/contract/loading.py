"""A program found by its name, a class without the base `Program` among them.

Programs written for version 0.1 derive from nothing, and have what they need. Here such a class gets the base, and with
it the default of every hook that it lacks; an engine that cannot tell what it refuses gets the answer that it refuses
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
    """The class itself where it derives from Program; else a class that derives from both, with the same name, the
    same one at every call. Raises TypeError where it is no class, or one that takes no other base."""
    if not isinstance(found, type):
        raise TypeError(f"{found!r} is not a class")
    if issubclass(found, Program):
        return found
    about = {"__module__": found.__module__, "__qualname__": found.__qualname__, "__doc__": found.__doc__}
    return type(found.__name__, (found, Baseless), about)


class Baseless(Program):
    """What a class without the base has beside the defaults: version 0.1 read settings of these names, whichever
    program they were of."""

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
    """What `pack` made, with `refuses` where it lacks that."""
    return made if isinstance(made, PackedEngine) else _Unrefusing(made)


class _Unrefusing:
    """An engine around one that refuses nothing."""

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
