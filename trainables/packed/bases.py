"""Which bases trials can be packed on, as far as config and signatures tell; probe.py measures the rest."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from trainables.models import kernels, targets
from trainables.packed import attention
from trainables.packed.frozen_linear import frozen_linear
from tuner.contract import Reason, Unpackable


def check(model: Any) -> None:
    """Raises Unpackable for a base whose loss couples its rows, or is a mean of each micro-batch.

    A router's auxiliary loss, which SFTTrainer adds, couples rows. A packed trial's loss is divided by the targets of
    its accumulation window, as SFTTrainer's is where the model accepts loss arguments (`accepts_loss_kwargs`).
    """
    config = model.config.get_text_config()
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", 0.0) != 0.0:
        raise unpackable(model, "its auxiliary loss is a mean over all rows of a batch, the neighbours' too")
    if not getattr(model, "accepts_loss_kwargs", _takes_any_keyword(model)):
        raise unpackable(model, "its loss is a mean of every micro-batch")


def row_attention(model: Any) -> attention.RowAttention:
    """Replaces the base's attention. Raises Unpackable where it cannot be replaced."""
    found = attention.attach(model)
    if found is None:
        if not kernels.attends(model):
            raise unpackable(model, "it has no attention, and its layers carry a state from each token to the next")
        chosen = model.config.get_text_config()._attn_implementation
        own = ": it runs as eager, which is code of its own" if chosen == "eager" else ""
        raise unpackable(model, f"its attention cannot be replaced{own}")
    return found


def unpackable(model: Any, why: str) -> Unpackable:
    """The fault of a base that trials cannot be packed on."""
    what = f"trials on {type(model).__name__} cannot be packed: {why}"
    return Unpackable(Reason.CONFIG, what, "set resources.trials_per_gpu to 1")


def foreseen(model: Any) -> str | None:
    """Why trials cannot be packed on a base, as far as it can be seen without weights; None where nothing is seen.
    Replaces the base's attention."""
    try:
        check(model)
        row_attention(model)
        for name in targets.linear_names(model):
            frozen_linear(name, model.get_submodule(name))
    except Unpackable as fault:
        return fault.message
    return None


def _takes_any_keyword(model: Any) -> bool:
    """Whether `forward` has a `**kwargs`, which transformers takes for `accepts_loss_kwargs` where it is not set."""
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def dropouts(model: Any) -> list[str]:
    """Names of attributes above zero that hold a rate of the base's own dropout, in modules of any kind."""
    return [
        f"{name}.{key}".strip(".")
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, float) and value > 0 and ("drop" in key or isinstance(module, torch.nn.Dropout))
    ]
