"""Replaces `forward` of the base's linear layers by one that adds the product of every slot's adapter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from trainables.models import parts, targets
from trainables.models.parts import Tower
from trainables.packed.frozen_linear import frozen_linear
from trainables.packed.layer_context import AdaptedLinear, BatchContext
from trainables.packed.multi_lora import MultiLoRALinear
from trainables.packed.stack import Stack
from tuner.contract import Fault, Reason


def attach(model: Any, context: BatchContext) -> dict[str, AdaptedLinear]:
    """Replaces `forward` of every linear layer that text passes through, but the output layer. Gives the adapted layers
    by module name.

    The module tree stays as it is, so that PEFT finds the base it knows. Raises Unpackable for a kind of layer that
    has no packed form.
    """
    layers, found = {}, parts.of(model)
    for name in targets.linear_names(model):
        if found[name].tower is not Tower.LANGUAGE:
            continue
        module = model.get_submodule(name)
        layers[name] = layer = AdaptedLinear(name, frozen_linear(name, module), context)
        layer.base = module.forward
        module.forward = partial(_forward, layer)
    return layers


def bind(layers: Mapping[str, AdaptedLinear], stack: Stack) -> None:
    """Gives every layer its views of the stack's buffers, and its scales on the device."""
    weights, grads = stack.views(stack.cast), stack.views(stack.grads)
    for name, layer in layers.items():
        layer.a, layer.b = weights[name]
        layer.grad_a, layer.grad_b = grads[name]
        layer.ranks = stack.ranks
        layer.scale = torch.tensor(layer.scales, dtype=stack.compute).view(-1, 1, 1).to(stack.device)


def _forward(layer: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
    """x: [1, tokens, in], of any floating dtype; gives [1, tokens, out] in the base's dtype.

    Raises Fault where x does not have the batch's number of tokens.
    """
    context = layer.context
    if not context.segments or not any(layer.scales[segment.slot] for segment in context.segments):
        return layer.base(x)
    if x.numel() != context.tokens * layer.shape.inputs:
        seen = x.numel() // layer.shape.inputs
        raise Fault(Reason.CONFIG, f"{layer.name} sees {seen} of the batch's {context.tokens} tokens: its trials "
                    "cannot be told apart", "set resources.trials_per_gpu to 1")  # fmt: skip
    return MultiLoRALinear.apply(x, layer.anchor, layer)
