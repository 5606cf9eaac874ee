"""Bases that take images, each with rows of pictures, trained as a worker does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_jsonl
from tests.trainables.images import image_bases
from trainables.sft import SFT
from tuner.contract import Assignment, Evaluation, Preparation

POINTS = (0.25, 0.5, 1.0)


@dataclass
class Bench:
    """A base with rows of pictures."""

    folder: Path
    settings: dict[str, Any]

    def prepared(self, **sections: dict[str, Any]) -> tuple[dict[str, Any], Preparation]:
        """Settings with changes by section, and the rows that they prepare."""
        settings = {name: {**values, **sections.get(name, {})} for name, values in self.settings.items()}
        return settings, SFT.prepare(settings, self.folder / "cache")

    def program(self, **sections: dict[str, Any]) -> SFT:
        return SFT(*self.prepared(**sections))

    def assignment(self, name: str, params: dict[str, Any] | None = None) -> Assignment:
        place = self.folder / name
        place.mkdir(parents=True)
        return Assignment(0, params or {}, 7, POINTS, str(place))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Rows as they are in the file."""
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]


def curve_of(program: SFT, task: Assignment) -> list[Evaluation]:
    """Runs a trial to its end; gives its evaluations."""
    program.start(task)
    curve = []
    while not curve or not curve[-1].done:
        curve.append(program.step())
    program.stop()
    return curve


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """Makes the bench of a family, once a module."""
    made: dict[str, Bench] = {}

    def make(name: str) -> Bench:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            base = image_bases.save(name, folder / "base")
            rows = image_bases.rows(folder, 32)
            train = write_jsonl(folder / "train.jsonl", rows[:24])
            validation = write_jsonl(folder / "validation.jsonl", rows[24:])
            made[name] = Bench(folder, {
                "model": {"model_name_or_path": str(base)},
                "data": {"train": str(train), "validation": str(validation), "max_length": 64},
                "train": {"max_steps": 8, "learning_rate": 5e-3, "lora_r": 4, "effective_batch_size": 4},
            })  # fmt: skip
        return made[name]

    return make
