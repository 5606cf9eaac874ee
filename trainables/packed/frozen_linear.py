"""The frozen linear layers of a base: their shapes, and the gradient of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from trainables.packed.stack import Shape
from tuner.contract import Reason, Unpackable


@dataclass(frozen=True)
class Frozen:
    """A layer whose weights have no gradient. backward: gradient of [tokens, outputs] to that of [tokens, inputs]."""

    shape: Shape
    backward: Callable[[torch.Tensor], torch.Tensor]


def freeze(name: str, module: Any) -> Frozen:
    """The layer's part in a backward pass, for the kinds of linear layers a base is loaded with."""
    if isinstance(module, Conv1D):  # transformers' own: a linear layer with its weight the other way round
        inputs, outputs = module.weight.shape
        return Frozen(Shape(inputs, outputs), partial(_back_conv1d, module))
    if isinstance(module, torch.nn.Linear):
        if getattr(module.weight, "quant_state", None) is not None:
            return Frozen(Shape(module.in_features, module.out_features), partial(_back_4bit, module))
        if module.weight.is_floating_point():  # whether it is no more than that the probe finds out
            return Frozen(Shape(module.in_features, module.out_features), partial(_back_linear, module))
    raise Unpackable(Reason.CONFIG, f"{name} is a {type(module).__name__}: no trials can be packed on it",
                     "set resources.trials_per_gpu to 1")  # fmt: skip


def _back_linear(module: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad @ module.weight.to(grad.dtype)


def _back_conv1d(module: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad @ module.weight.t().to(grad.dtype)


def _back_4bit(module: Any, grad: torch.Tensor) -> torch.Tensor:
    """As bitsandbytes has it: the weights are unpacked once more, and in the precision that the layer computes in."""
    from bitsandbytes.functional import dequantize_4bit

    weight = module.weight
    grad = grad.to(module.compute_dtype or grad.dtype)
    return grad @ dequantize_4bit(weight.data.view(-1, 1), weight.quant_state).to(grad.dtype)
