"""A program that trains nothing heavy: its loss is a formula of its parameters.

A whole search on real Ray then takes seconds, and its trials misbehave in every way a real one can, when told to.

The loss after a share s of the steps is `floor + (8 - floor) * 0.02 ** s` where floor grows with the distance of
log10(learning_rate) from -2: a clear optimum and curves that keep their order.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tuner.contract import Assignment, Budget, Evaluation, Fault, InputError, Parameter, Preparation, Reason, Setup

Behaviour = Literal[
    "fine", "nan", "inf", "none", "missing", "raise", "exit", "frozen", "data", "out_of_memory", "flat", "nonsense"
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Train(Strict):
    max_steps: int = Field(27, ge=1)
    num_train_epochs: float | None = None
    """Wins over max_steps."""
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(8, ge=1)
    eval_steps: float = 0.1
    behaviour: Behaviour = "fine"
    misbehaving: list[int] = []
    pace: float = 0.0
    """Seconds between evaluations."""


class ToySettings(Strict):
    train: Train = Train()
    unprepared: Literal["", "input", "fault", "crash"] = ""


class Toy:
    """See the module."""

    Settings = ToySettings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "learning_rate": Parameter("learning_rate", "train.learning_rate", "float", low=1e-6, high=1.0, label="lr"),
        "batch_size": Parameter("batch_size", "train.batch_size", "int", low=1, high=64, label="batch"),
    }
    REFUSED: ClassVar[Mapping[str, str]] = {"max_length": "it changes what the loss means"}

    @classmethod
    def budget(cls, settings: ToySettings) -> Budget:
        epochs = settings.train.num_train_epochs
        return Budget(steps=None if epochs else settings.train.max_steps, epochs=epochs)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        match settings["unprepared"]:
            case "input":
                raise InputError("the toy data is empty", where="toy.jsonl", expected="rows")
            case "fault":
                raise Fault(Reason.DATA, "every label is masked", "look at the template")
            case "crash":
                raise RuntimeError("boom")
        return Preparation(folder=str(cache), tokens=100_000, facts={"rows": 1000}, notes=("toy data",))

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        self._settings = ToySettings.model_validate(settings).train
        self._started_trials = 0

    def start(self, assignment: Assignment) -> Setup:
        train = self._settings.model_copy(update=dict(assignment.params))
        self._assignment, self._train = assignment, train
        self._behaviour = train.behaviour if assignment.number in train.misbehaving else "fine"
        epochs = train.num_train_epochs
        self._max_steps = max(1, round(1000 * epochs / train.batch_size)) if epochs else train.max_steps
        self._left = list(assignment.evaluation_steps(self._max_steps))
        self._best, self._began = math.inf, time.monotonic()
        self._started_trials += 1
        if self._behaviour == "frozen":
            raise Fault(Reason.FROZEN, "0 of 1,000 parameters are trainable", "give SFTTrainer base and peft_config=")
        if self._behaviour == "data":
            raise Fault(Reason.DATA, "no label tokens", "look at the template")
        return Setup(self._max_steps, 10, 1000, {"share": "10 of 1,000, 1.0%", "pid": os.getpid()})

    def step(self) -> Evaluation:
        time.sleep(self._train.pace)
        step = self._left.pop(0)
        loss: float | None = self.loss(step)
        if step > self._max_steps * 0.2:
            match self._behaviour:
                case "nan":
                    loss = math.nan
                case "inf":
                    loss = math.inf
                case "none" | "missing":
                    loss = None
                case "nonsense":
                    return "nonsense"  # type: ignore[return-value]
                case "raise":
                    raise ValueError("the toy broke")
                case "exit":
                    os._exit(7)
                case "out_of_memory":
                    raise Fault(Reason.OUT_OF_MEMORY, "micro-batch 1 does not fit", "a smaller model")
        adapter = None
        if loss is not None and loss < self._best:
            self._best = loss
            adapter = self._save(loss)
        seconds = time.monotonic() - self._began
        return Evaluation(step, self._max_steps, loss, step * 100, train_loss=loss, seconds=seconds, adapter=adapter)

    def stop(self) -> None:
        self._left = []

    def loss(self, step: int) -> float:
        distance = abs(math.log10(self._train.learning_rate) + 2)
        floor = 2 + distance
        if self._behaviour == "flat":
            return 2.5
        return floor + (8 - floor) * 0.02 ** (step / self._max_steps)

    def _save(self, loss: float) -> str:
        folder = Path(self._assignment.folder) / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter.json").write_text(json.dumps({"loss": loss, **self._assignment.params}))
        return str(folder)
