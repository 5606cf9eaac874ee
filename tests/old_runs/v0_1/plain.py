"""A program as version 0.1 had it explained: a plain class that reports `eval_loss`. The run beside it was made with
this file, whose content the ledger knows: it stays as it is."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from tuner.contract import STATE, Assignment, Budget, Evaluation, Parameter, Preparation, Setup


class Train(BaseModel):
    learning_rate: float = 1e-3
    max_steps: int = 24
    pace: float = 0.0
    nan: list[int] = []
    none: list[int] = []


class PlainSettings(BaseModel):
    train: Train = Train()


class Plain:
    Settings: ClassVar[Any] = PlainSettings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "learning_rate": Parameter("learning_rate", "train.learning_rate", "float", low=1e-6, high=1.0)
    }
    REFUSED: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def budget(cls, settings: PlainSettings) -> Budget:
        return Budget(steps=settings.train.max_steps)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        return Preparation(folder=str(cache), facts={"rows": 10})

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        self._train = PlainSettings.model_validate(settings).train

    def start(self, assignment: Assignment) -> Setup:
        self._assignment = assignment
        self._rate = float(assignment.params["learning_rate"])
        self._left = list(assignment.evaluation_steps(self._train.max_steps))
        self._best, begun = math.inf, 0
        resume = assignment.resume
        for folder in resume.folders if resume else ():
            state = Path(folder, STATE, "state.json")
            if state.exists():
                begun = json.loads(state.read_text())["step"]
                best = resume.best_eval_loss if resume else None
                self._best = math.inf if best is None else best
                break
        self._left = [step for step in self._left if step > begun]
        return Setup(self._train.max_steps, 1, 1, resumed_step=begun)

    def step(self) -> Evaluation:
        time.sleep(self._train.pace)
        step = self._left.pop(0)
        floor = 2 + abs(math.log10(self._rate) + 2)
        loss: float | None = floor + (8 - floor) * 0.02 ** (step / self._train.max_steps)
        if step > 8 and self._assignment.number in self._train.nan:
            loss = math.nan
        if step > 8 and self._assignment.number in self._train.none:
            loss = None
        adapter = None
        if loss is not None and loss < self._best:
            self._best = loss
            folder = Path(self._assignment.folder) / "adapter"
            folder.mkdir(exist_ok=True)
            (folder / "adapter.json").write_text(json.dumps({"loss": loss}))
            adapter = str(folder)
        state = Path(self._assignment.folder) / STATE
        state.mkdir(exist_ok=True)
        (state / "state.json").write_text(json.dumps({"step": step}))
        return Evaluation(
            step=step,
            max_steps=self._train.max_steps,
            eval_loss=loss,
            tokens=step * 10,
            train_loss=loss,
            adapter=adapter,
        )

    def stop(self) -> None:
        self._left = []
