"""What a space may vary, what it may not and why, and how a trial's parameters become its settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from trainables.settings.root import Settings
from trainables.settings.train import AlphaMode, Init, Optimizer, Scheduler
from tuner.contract import InputError, Parameter

_VISION = ("frozen", "adapted")


def _parameter(name: str, kind: str, **more: Any) -> tuple[str, Parameter]:
    """A setting of section `train` as a parameter of a space."""
    return name, Parameter(name=name, path=f"train.{name}", kind=kind, **{"label": name, **more})


PARAMETERS: Mapping[str, Parameter] = dict(
    [
        _parameter("learning_rate", "float", low=1e-8, high=10.0),
        _parameter("lora_r", "int", low=1, high=4096, heavy=True),
        _parameter("lora_alpha_mode", "choice", choices=get_args(AlphaMode), label="alpha"),
        _parameter("lora_dropout", "float", low=0.0, high=0.95, label="dropout", heavy=True),
        _parameter("target_modules", "choice", label="targets"),
        _parameter("effective_batch_size", "int", low=1, high=65536, label="batch", heavy=True),
        _parameter("warmup_ratio", "float", low=0.0, high=0.95, label="warmup", warmup=True),
        _parameter("lr_scheduler_type", "choice", choices=get_args(Scheduler), label="schedule"),
        _parameter("weight_decay", "float", low=0.0, high=10.0, label="decay"),
        _parameter("max_grad_norm", "float", low=0.0, high=1000.0, label="clip"),
        _parameter("num_train_epochs", "float", low=0.001, high=1000.0, label="epochs"),
        _parameter("max_steps", "int", low=1, high=10_000_000, label="steps"),
        _parameter("use_dora", "choice", choices=(True, False), label="dora"),
        _parameter("init_lora_weights", "choice", choices=get_args(Init), label="init"),
        _parameter("optim", "choice", choices=get_args(Optimizer)),
        ("vision", Parameter("vision", "model.vision", "choice", choices=_VISION, label="vision", heavy=True)),
    ]
)

_MEANING = "it changes what the validation loss means, and trials could not be compared"
_RESIDENT = "a worker keeps one base for all its trials: run one search for each"

REFUSED: Mapping[str, str] = {
    "max_length": f"{_MEANING}; set data.max_length",
    "max_pixels": f"{_MEANING}; set data.max_pixels",
    "packing": f"{_MEANING}; rows are not packed",
    "packing_strategy": f"{_MEANING}; rows are not packed",
    "completion_only_loss": f"{_MEANING}; set data.completion_only_loss",
    "assistant_only_loss": f"{_MEANING}; set data.assistant_only_loss",
    "chat_template": f"{_MEANING}; set data.chat_template",
    "chat_template_path": f"{_MEANING}; set data.chat_template",
    "format": f"{_MEANING}; set data.format",
    "text_field": f"{_MEANING}; set data.text_field",
    "validation": f"{_MEANING}; set data.validation",
    "validation_fraction": f"{_MEANING}; set data.validation_fraction",
    "max_validation_rows": f"{_MEANING}; set data.max_validation_rows",
    "per_device_eval_batch_size": f"{_MEANING} (the loss is a mean over batches); set train.per_device_eval_batch_size",
    "eval_steps": "all trials are measured at the same points, or their curves could not be compared",
    "train": "all trials learn from the same rows",
    "max_train_rows": "all trials learn from the same rows; search num_train_epochs or max_steps instead",
    "per_device_train_batch_size": "it only divides the work; search effective_batch_size, the rest follows from it",
    "gradient_accumulation_steps": "it only divides the work; search effective_batch_size, the rest follows from it",
    "lora_alpha": "alpha and learning rate together have no single optimum; search lora_alpha_mode (fixed, 2r, rslora)",
    "seed": "a seed is not a hyperparameter: the best of many seeds does not repeat",
    "model_name_or_path": _RESIDENT,
    "model_revision": _RESIDENT,
    "quantization": _RESIDENT,
    "dtype": _RESIDENT,
    "attn_implementation": "it changes speed, not what is learned; set model.attn_implementation",
    "gradient_checkpointing": "it changes speed and memory, not what is learned; set train.gradient_checkpointing",
}


def short_name(name: str) -> str:
    """The name in PARAMETERS of a short or dotted name. Raises InputError, with the nearest one, where there is
    none."""
    short = name.rpartition(".")[2]
    found = PARAMETERS.get(short)
    if found is not None and name in (short, found.path):
        return short
    if short in REFUSED:
        raise InputError(f"{name} cannot be searched: {REFUSED[short]}", where="search.space")
    near = difflib.get_close_matches(short, PARAMETERS, n=1)
    raise InputError(
        f"no parameter {name!r}",
        where="search.space",
        expected=f"one of {', '.join(PARAMETERS)}",
        remedy=near[0] if near else "",
    )


def with_params(settings: Settings, params: Mapping[str, Any]) -> Settings:
    """The settings of a trial: `params` (short or dotted names) over `settings`, all validated again.

    Raises InputError for settings that cannot be combined.
    """
    data = settings.model_dump()
    for name, value in params.items():
        section, _, key = PARAMETERS[short_name(name)].path.partition(".")
        data[section][key] = list(value) if isinstance(value, tuple) else value
        if key == "max_steps":
            data[section]["num_train_epochs"] = None
        if key == "num_train_epochs":
            data[section]["max_steps"] = None
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(first["msg"].removeprefix("Value error, "), where=where or "search.space") from None
