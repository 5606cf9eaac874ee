"""Which bases trials can be packed on."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from trainables.packed import attention
from trainables.packed.rows import Rows
from tuner.contract import Fault, Reason


def check(model: Any) -> None:
    """Refuses a base whose loss couples its rows or is not divided by a window's targets, or that draws at random."""
    config = model.config.get_text_config()
    why = None
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", 0.0) != 0.0:
        why = "its auxiliary loss is a mean over all rows of a batch, the neighbours' too"
    elif LOSS_MAPPING.get(getattr(model, "loss_type", None)) is not ForCausalLMLoss:
        why = "its loss is not that of a causal language model"
    elif not getattr(model, "accepts_loss_kwargs", _takes_anything(model)):
        why = "its loss is a mean of every micro-batch"
    elif dropouts := _dropouts(model):
        why = f"its own dropout ({dropouts[0]}) draws from one stream for all of them"
    if why is not None:
        raise Fault(Reason.CONFIG, f"trials on {type(model).__name__} cannot be packed: {why}",
                    "set scheduler.trials_per_gpu to 1")  # fmt: skip


def row_attention(model: Any, *sets: Rows) -> attention.RowAttention:
    """The base's attention over rows in a line; refuses a base that has none."""
    why = None
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window < max(rows.longest for rows in sets):
        why = f"its attention sees {window} tokens, and rows are longer"
    elif (found := attention.attach(model)) is not None:
        return found
    raise Fault(Reason.CONFIG, f"trials on {type(model).__name__} cannot be packed: "
                f"{why or 'its attention cannot be replaced'}", "set scheduler.trials_per_gpu to 1")  # fmt: skip


def _takes_anything(model: Any) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _dropouts(model: Any) -> list[str]:
    """Where the base drops in training: modules, and numbers handed to functions."""
    return [
        f"{name}.{key}".strip(".")
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, float) and value > 0 and ("drop" in key or isinstance(module, torch.nn.Dropout))
    ]
