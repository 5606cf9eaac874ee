"""What a program is: the class that prepares data, trains and measures."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from tuner.contract.errors import InputError
from tuner.contract.facts import Assignment, Budget, Evaluation, Preparation, Setup


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter that a program lets a search vary.

    path: where its value stands in the settings ("train.learning_rate"). kind: float, int, or choice.
    choices: every value allowed (choice), or None when `check` decides. low, high: bounds of what makes sense.
    label: a short column heading for tables.
    """

    name: str
    path: str
    kind: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    label: str = ""
    warmup: bool = False
    """True for the parameter that is the warm-up's share of a trial; the grace period is at least as long."""
    heavy: bool = False
    """True where a trial takes more memory the larger the value is."""


@runtime_checkable
class Program(Protocol):
    """What fine-tunes. One instance lives in a worker and runs one trial after another.

    The class attributes and class methods answer without heavy imports (torch and the like); `prepare` and `merge`
    run in a process of their own and may import anything.
    """

    Settings: ClassVar[Any]
    """A pydantic model; its fields are the program's sections of the experiment file."""

    PARAMETERS: ClassVar[Mapping[str, Parameter]]
    """What a space may vary, by name."""

    REFUSED: ClassVar[Mapping[str, str]]
    """What a space may not vary, by name, each with the reason shown to the user."""

    @classmethod
    def budget(cls, settings: Any) -> Budget: ...

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        """Reads, checks and tokenizes the data once. Raises InputError or Fault. Idempotent, safe to race."""
        ...

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None: ...

    def start(self, assignment: Assignment) -> Setup: ...

    def step(self) -> Evaluation:
        """Trains to the next evaluation and measures."""
        ...

    def stop(self) -> None:
        """Ends the trial, wherever it is, and takes everything it brought away. Called once for each `start`."""
        ...


PROGRAMS = {"sft": "trainables.sft:SFT"}


def load_program(name: str) -> type[Program]:
    """The program class called `name`: a key of PROGRAMS or "package.module:Class"."""
    target = PROGRAMS.get(name, name)
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise InputError(
            f"no program {name!r} ({error})",
            where="run.program",
            expected=f"one of {', '.join(PROGRAMS)}, or package.module:Class",
        ) from error
