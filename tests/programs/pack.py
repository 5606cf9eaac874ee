"""The toy packed: an engine with a toy in each slot, which it steps one after another."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.programs.misbehaving import misbehave
from tests.programs.toy import Toy, ToySettings
from tuner.contract import Assignment, Evaluation, Fault, Preparation, Setup


@dataclass(frozen=True)
class Choice:
    slots: int
    fit: int
    note: str = ""


class Pack(Toy):
    """A trial whose batch is larger than 8 cannot be packed."""

    @classmethod
    def packs(cls, settings: ToySettings, params: Mapping[str, Any]) -> str | None:
        return "batches above 8 are not packed" if params.get("batch_size", 0) > 8 else None

    @classmethod
    def pack(cls, settings: Mapping[str, Any], preparation: Preparation, slots: int, *, beside: bool = False) -> Engine:
        match settings["in_pack"]:
            case "die":
                os._exit(7)
            case "sleeps":
                time.sleep(60)
            case what:
                misbehave(what)
        return Engine(settings, preparation)


class Warm(Pack):
    """Imports a module that does not exist, before its rows are prepared."""

    @classmethod
    def warm(cls) -> None:
        misbehave("import_error")


class Engine:
    """See the module."""

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        self._settings, self._preparation = settings, preparation
        self._toys: dict[int, Toy] = {}
        self._waits: set[int] = set()
        self._kept: set[int] = set()

    @property
    def busy(self) -> bool:
        return bool(self._toys.keys() - self._waits)

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> Choice:
        return Choice(wanted, wanted)

    def join(self, slot: int, assignment: Assignment) -> Setup:
        self.leave(slot)
        toy = Toy(self._settings, self._preparation)
        setup = toy.start(assignment)
        self._toys[slot] = toy
        return setup

    def leave(self, slot: int) -> None:
        if slot in self._kept:
            raise RuntimeError("it does not let go")
        toy = self._toys.pop(slot, None)
        if toy is not None and toy.keeps_its_slot:
            self._kept.add(slot)
            raise RuntimeError("it does not let go")
        self._waits.discard(slot)

    def confirm(self, slot: int) -> None:
        self._toys[slot].confirmed()
        self._waits.discard(slot)

    def advance(self, limit: int | None = None) -> Sequence[tuple[int, Evaluation | Fault]]:
        slot = min(self._toys.keys() - self._waits)
        evaluation = self._toys[slot].step()
        self._waits.add(slot)
        return [(slot, evaluation)]
