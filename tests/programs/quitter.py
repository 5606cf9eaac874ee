"""The smallest program that can be packed, as CONTRIBUTING.md describes one. Its engine calls `sys.exit` in its first
step, or imports a module that does not exist."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from pydantic import BaseModel

from tuner.contract import Assignment, Budget, Evaluation, Fault, Parameter, Preparation, Setup


class Train(BaseModel):
    max_steps: int = 20
    learning_rate: float = 0.01


class Settings(BaseModel):
    train: Train = Train()


class Engine:
    """See the module."""

    busy = True

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> Any:
        return SimpleNamespace(slots=wanted, fit=wanted, note="")

    def join(self, slot: int, assignment: Assignment) -> Setup:
        return Setup(20, 1, 1)

    def leave(self, slot: int) -> None:
        pass

    def confirm(self, slot: int) -> None:
        pass

    def advance(self, limit: int | None = None) -> list[tuple[int, Evaluation | Fault]]:
        sys.exit(3)


class Quitter:
    """See the module."""

    Settings: ClassVar[Any] = Settings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "learning_rate": Parameter("learning_rate", "train.learning_rate", "float", low=1e-6, high=1.0)
    }
    REFUSED: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def budget(cls, settings: Settings) -> Budget:
        return Budget(steps=settings.train.max_steps)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        return Preparation(folder=str(cache))

    @classmethod
    def packs(cls, settings: Settings, params: Mapping[str, Any]) -> str | None:
        return None

    @classmethod
    def pack(cls, settings: Mapping[str, Any], preparation: Preparation, slots: int, *, beside: bool = False) -> Engine:
        return Engine()

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        pass

    def start(self, assignment: Assignment) -> Setup:
        return Setup(20, 1, 1)

    def step(self) -> Evaluation:
        sys.exit(3)

    def stop(self) -> None:
        pass


class Unwarmed(Quitter):
    """See the module."""

    @classmethod
    def warm(cls) -> None:
        raise ImportError("libfoo")
