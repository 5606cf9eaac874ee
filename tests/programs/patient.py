"""The toy with a stage that does not end: `TUNER_TEST_STAYS` names it, and the toy writes a file when it is there.

Packed, every slot has a toy of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.programs.toy import Toy
from tuner.contract import Assignment, Evaluation, Preparation, Setup

STAYS, SIGN = "TUNER_TEST_STAYS", "TUNER_TEST_SIGN"


def stay(stage: str, seconds: float = 3600) -> None:
    """If this is the stage, writes the file and sleeps, as in a system call that takes long."""
    if os.environ.get(STAYS) == stage:
        Path(os.environ[SIGN]).touch()
        time.sleep(seconds)


class Patient(Toy):
    """See the module."""

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        stay("preparation")
        return Toy.prepare(settings, cache)

    @classmethod
    def packs(cls, settings: Any, params: Mapping[str, Any]) -> str | None:
        return None

    @classmethod
    def pack(cls, settings: Mapping[str, Any], preparation: Preparation, slots: int, *, beside: bool = False) -> Engine:
        stay("engines")
        return Engine(settings, preparation, slots)

    def step(self) -> Evaluation:
        stay("long step")
        return super().step()


class Engine:
    """An engine whose slots take turns."""

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation, slots: int) -> None:
        self._free = [Toy(settings, preparation) for _ in range(slots)]
        self._taken: dict[int, Toy] = {}
        self._owes: dict[int, bool] = {}

    @property
    def busy(self) -> bool:
        return any(toy._left and not self._owes[slot] for slot, toy in self._taken.items())

    def choose(self, wanted: int, heaviest: Any, *, measure: bool, beside: bool = False) -> Any:
        return SimpleNamespace(slots=wanted, fit=wanted, note="")

    def join(self, slot: int, assignment: Assignment) -> Setup:
        self._taken[slot], self._owes[slot] = self._free[slot], False
        return self._taken[slot].start(assignment)

    def leave(self, slot: int) -> None:
        self._taken.pop(slot, None)

    def confirm(self, slot: int) -> None:
        self._owes[slot] = False

    def advance(self, limit: int | None = None) -> Iterator[tuple[int, Evaluation]]:
        for slot, toy in list(self._taken.items()):
            if toy._left and not self._owes[slot]:
                self._owes[slot] = True
                yield slot, toy.step()
