"""A frozen linear layer of the base: its shape, and the gradient of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from trainables.packed.stack import LinearShape
from tuner.contract import Reason, Unpackable


@dataclass(frozen=True)
class FrozenLinear:
    """A linear layer whose weights have no gradient."""

    shape: LinearShape
    """Its features in and out."""
    input_grad: Callable[[torch.Tensor], torch.Tensor]
    """From the gradient of its outputs [tokens, out], of any floating dtype, to that of its inputs [tokens, in]: in the
    compute dtype of a 4-bit layer, else in the dtype of the given gradient."""


def frozen_linear(name: str, module: Any) -> FrozenLinear:
    """The frozen form of a linear layer of a kind that a base is loaded with. Raises Unpackable for any other."""
    if isinstance(module, Conv1D):  # transformers' own: a linear layer with its weight transposed
        inputs, outputs = module.weight.shape
        return FrozenLinear(LinearShape(inputs, outputs), partial(_input_grad_conv1d, module))
    if isinstance(module, torch.nn.Linear):
        shape = LinearShape(module.in_features, module.out_features)
        if getattr(module.weight, "quant_state", None) is not None:
            return FrozenLinear(shape, partial(_input_grad_4bit, module))
        if module.weight.is_floating_point():  # the probe finds out whether it does more than a linear layer
            return FrozenLinear(shape, partial(_input_grad_linear, module))
    raise Unpackable(Reason.CONFIG, f"{name} is a {type(module).__name__}: no trials can be packed on it",
                     "set resources.trials_per_gpu to 1")  # fmt: skip


def _input_grad_linear(module: Any, grad: torch.Tensor) -> torch.Tensor:
    """grad: [tokens, out]; gives [tokens, in] in its dtype."""
    return grad @ module.weight.to(grad.dtype)


def _input_grad_conv1d(module: Any, grad: torch.Tensor) -> torch.Tensor:
    """grad: [tokens, out]; gives [tokens, in] in its dtype."""
    return grad @ module.weight.t().to(grad.dtype)


def _input_grad_4bit(module: Any, grad: torch.Tensor) -> torch.Tensor:
    """grad: [tokens, out]; gives [tokens, in] in the dtype that the layer computes in.

    Dequantizes the weights again, as bitsandbytes does.
    """
    from bitsandbytes.functional import dequantize_4bit

    weight = module.weight
    grad = grad.to(module.compute_dtype or grad.dtype)
    return grad @ dequantize_4bit(weight.data.view(-1, 1), weight.quant_state).to(grad.dtype)
