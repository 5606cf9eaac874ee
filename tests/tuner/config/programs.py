"""A program beside the real one, without torch and files: its loss is a formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuner.contract import Assignment, Budget, Evaluation, Parameter, Preparation, Setup

PATH = {"format": "path"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Plain(Strict):
    kind: Literal["none"] = "none"


class Nf4(Strict):
    kind: Literal["nf4"] = "nf4"
    double_quant: bool = True


Quantization = Annotated[
    Annotated[Plain | Nf4, Field(discriminator="kind")],
    BeforeValidator(
        lambda value: {"kind": value} if isinstance(value, str) else value,
        json_schema_input_type=Literal["none", "nf4"] | Plain | Nf4,
    ),
]


class Model(Strict):
    model_name_or_path: str = Field(min_length=1, description="Hub id or local folder.", json_schema_extra=PATH)
    quantization: Quantization = Plain()


class Data(Strict):
    train: str = Field(min_length=1, description="Training rows.", json_schema_extra=PATH)
    validation: str | None = Field(default=None, json_schema_extra=PATH)
    max_length: int = Field(default=1024, ge=8)


class Train(Strict):
    max_steps: int | None = Field(default=None, ge=1)
    num_train_epochs: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    lora_r: int = Field(default=16, ge=1)
    lora_alpha_mode: Literal["fixed", "2r", "rslora"] = "fixed"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    use_dora: bool = False
    init_lora_weights: Literal["true", "gaussian"] = "true"
    eval_steps: int | float = 0.1

    @model_validator(mode="after")
    def _one_budget(self) -> Train:
        if self.max_steps is not None and self.num_train_epochs is not None:
            raise ValueError("give max_steps or num_train_epochs, not both")
        return self


class TinySettings(Strict):
    model: Model
    data: Data
    train: Train = Train()

    @model_validator(mode="after")
    def _dora_over_plain_base(self) -> TinySettings:
        if self.train.use_dora and self.model.quantization.kind == "nf4" and self.train.lora_r < 8:
            raise ValueError("use_dora over nf4 needs lora_r >= 8")
        return self


class Tiny:
    """The loss is the distance of the learning rate from 1e-3, in decades; the rank does not matter."""

    Settings: ClassVar[Any] = TinySettings
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        parameter.name: parameter
        for parameter in (
            Parameter("learning_rate", "train.learning_rate", "float", low=1e-7, high=1.0, label="lr"),
            Parameter("lora_r", "train.lora_r", "int", low=1, high=1024),
            Parameter("lora_alpha_mode", "train.lora_alpha_mode", "choice", choices=("fixed", "2r", "rslora")),
            Parameter("warmup_ratio", "train.warmup_ratio", "float", low=0, high=0.5, warmup=True),
            Parameter("target_modules", "train.target_modules", "choice"),
            Parameter("use_dora", "train.use_dora", "choice", choices=(True, False)),
            Parameter("init_lora_weights", "train.init_lora_weights", "choice", choices=("true", "gaussian")),
            Parameter("max_steps", "train.max_steps", "int", low=1),
        )
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        "max_length": "it changes which tokens the loss is the mean of, so the trials cannot be compared"
    }

    def __init__(self, settings: Mapping[str, Any], preparation: Preparation) -> None:
        self.settings, self.preparation = settings, preparation
        self.assignment: Assignment | None = None
        self.evaluations = 0

    @classmethod
    def budget(cls, settings: TinySettings) -> Budget:
        if settings.train.max_steps is None:
            return Budget(None, settings.train.num_train_epochs or 1.0)
        return Budget(settings.train.max_steps)

    @classmethod
    def prepare(cls, settings: Mapping[str, Any], cache: Path) -> Preparation:
        return Preparation(folder=str(cache))

    def start(self, assignment: Assignment) -> Setup:
        self.assignment, self.evaluations = assignment, 0
        return Setup(max_steps=100, trainable_parameters=1, total_parameters=2)

    def step(self) -> Evaluation:
        assert self.assignment is not None
        done = self.assignment.evaluate_at[self.evaluations]
        self.evaluations += 1
        rate = self.assignment.params.get("learning_rate", self.settings["train"]["learning_rate"])
        loss = 1 + abs(math.log10(rate) + 3) + 1 / (100 * done)
        return Evaluation(step=round(100 * done), max_steps=100, eval_loss=loss, tokens=round(1000 * done))

    def stop(self) -> None:
        self.assignment = None
