"""Section `train`: the recipe, i.e. the default hyperparameters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainables.settings.section import PATH, Section

Scheduler = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]
Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "adafactor",
    "rmsprop",
    "sgd",
]
AlphaMode = Literal["fixed", "2r", "rslora"]
Init = Literal["true", "gaussian", "orthogonal", "pissa", "olora"]
CHANGES_BASE = ("pissa", "olora")
"""Initialisations that subtract the adapter from the base's own weights."""
TargetWord = Literal["all-linear", "attention", "mlp"]


class TrainSettings(Section):
    """The recipe: the default hyperparameters. Trial 0 of a search runs exactly this."""

    max_steps: int | None = Field(default=None, ge=1)
    """Length of a trial in optimizer steps; null: num_train_epochs gives the length."""

    num_train_epochs: float | None = Field(default=1.0, gt=0)
    """Length of a trial in passes over the training rows; null if max_steps gives the length."""

    learning_rate: float = Field(default=3.0e-4, gt=0, le=10)
    """Peak learning rate; 3e-4 was the best single value for LoRA in 22 of 35 published sweeps."""

    effective_batch_size: int = Field(default=16, ge=1)
    """Rows of an optimizer step, over all micro-batches."""

    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Upper limit of the micro-batch; the largest divisor of effective_batch_size up to it is used."""

    per_device_eval_batch_size: int = Field(default=8, ge=1)
    """Rows in a validation batch."""

    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""

    lr_scheduler_type: Scheduler = "linear"
    """How the learning rate falls after the warm-up."""

    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay, on the adapter."""

    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are clipped to this norm; 0: no clipping."""

    optim: Optimizer = "adamw_torch_fused"
    """Optimizer, by transformers' name."""

    lora_r: int = Field(default=16, ge=1, le=4096)
    """Rank of the adapter."""

    lora_alpha_mode: AlphaMode = "fixed"
    """fixed: lora_alpha; 2r: twice lora_r; rslora: lora_alpha scaled by the root of the rank."""

    lora_alpha: float = Field(default=32, gt=0)
    """Scale of the adapter, with lora_alpha_mode fixed or rslora."""

    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""

    target_modules: TargetWord | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """all-linear, attention, mlp, or a list of module names."""

    use_dora: bool = False
    """Learn direction and magnitude separately (DoRA); slower."""

    init_lora_weights: Init = "true"
    """How the adapter is initialised. pissa and olora start from the base's own weights. They and orthogonal cannot be
    used with NF4."""

    init_adapter: str | None = Field(default=None, min_length=1, json_schema_extra=PATH)
    """Folder of a PEFT adapter that training goes on from; null: a new one. Its rank, its alpha and the layers that it
    is on must be those of the settings, and none of them is searched."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 1.5 times the time."""

    eval_steps: float = Field(default=0.1, gt=0)
    """Interval between validations: below 1 a share of the trial, from 1 on a number of optimizer steps."""

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_epochs(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("max_steps") is None:
            return values
        if values.get("num_train_epochs") is not None:
            raise ValueError("give either max_steps or num_train_epochs, not both: set one of them to null")
        return {**values, "num_train_epochs": None}

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.max_steps is None and self.num_train_epochs is None:
            raise ValueError("give max_steps or num_train_epochs: both are null")
        if self.eval_steps > 1 and self.eval_steps != int(self.eval_steps):
            raise ValueError(f"eval_steps above 1 counts steps and must be whole, got {self.eval_steps}")
        if self.init_lora_weights == "orthogonal" and self.lora_r % 2:
            raise ValueError(f"init_lora_weights orthogonal needs an even lora_r, got {self.lora_r}")
        if self.init_adapter and self.init_lora_weights in CHANGES_BASE:
            raise ValueError(
                f"init_adapter with init_lora_weights {self.init_lora_weights}, which changes the base: set it to true"
            )
        return self

    @property
    def alpha(self) -> float:
        """The adapter's lora_alpha under its mode."""
        return 2 * self.lora_r if self.lora_alpha_mode == "2r" else self.lora_alpha
