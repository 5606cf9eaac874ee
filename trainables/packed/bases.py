"""Which bases trials can be packed on, as far as their code says it; what they do is asked by probe.py."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from trainables.packed import attention
from tuner.contract import Reason, Unpackable


def check(model: Any) -> None:
    """Refuses a base whose loss couples its rows, or is not divided by a window's targets; in the words of SFTTrainer,
    which adds the one and asks for the other."""
    config = model.config.get_text_config()
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", 0.0) != 0.0:
        raise unpackable(model, "its auxiliary loss is a mean over all rows of a batch, the neighbours' too")
    if not getattr(model, "accepts_loss_kwargs", _takes_anything(model)):
        raise unpackable(model, "its loss is a mean of every micro-batch")


def row_attention(model: Any) -> attention.RowAttention:
    """The base's attention over rows in a line; refuses a base that has none."""
    found = attention.attach(model)
    if found is None:
        raise unpackable(model, "its attention cannot be replaced")
    return found


def unpackable(model: Any, why: str) -> Unpackable:
    """The fault of a base that takes no packed trials."""
    what = f"trials on {type(model).__name__} cannot be packed: {why}"
    return Unpackable(Reason.CONFIG, what, "set resources.trials_per_gpu to 1")


def _takes_anything(model: Any) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def dropouts(model: Any) -> list[str]:
    """Where the base drops in training: modules, and numbers handed to functions."""
    return [
        f"{name}.{key}".strip(".")
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, float) and value > 0 and ("drop" in key or isinstance(module, torch.nn.Dropout))
    ]
