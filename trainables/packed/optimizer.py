"""AdamW and clipping over a stack, every slot with its own rate, decay, norm and step count.

Row by row the arithmetic of torch's AdamW, with transformers' betas and epsilon. Rows touch nothing of each other, so
a row that is not finite stays alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables.packed.stack import Stack

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_CLIP_EPSILON = 1e-6
"""torch.nn.utils.clip_grad_norm_ adds it to the norm."""


@dataclass(frozen=True)
class Update:
    """One slot's optimizer step. step: counted from 1. max_norm 0: gradients are not clipped."""

    slot: int
    step: int
    rate: float
    decay: float
    max_norm: float


def apply(stack: Stack, updates: Sequence[Update]) -> torch.Tensor:
    """Takes the optimizer step of each of `updates` and clears those gradients. Gives their norms before clipping."""
    slots = [update.slot for update in updates]
    everyone = slots == list(range(stack.slots))
    rows = slice(None) if everyone else torch.tensor(slots, device=stack.device)

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).unsqueeze(1).to(stack.device, non_blocking=True)

    beta1, beta2 = _BETAS
    corrections = [(1 - beta1**update.step, (1 - beta2**update.step) ** 0.5) for update in updates]
    # In fp32 and rounded once at the end, as the fused kernel does with bf16 weights
    grad, weight, first, second = (
        buffer[rows].float() for buffer in (stack.grads, stack.weights, stack.first, stack.second)
    )
    norms = torch.linalg.vector_norm(grad, dim=1)
    if any(update.max_norm > 0 for update in updates):
        limits = column([update.max_norm if update.max_norm > 0 else float("inf") for update in updates])
        factors = (limits / (norms.unsqueeze(1) + _CLIP_EPSILON)).clamp_(max=1.0)
        grad = grad * factors
        if stack.dtype != torch.float32:
            grad = grad.to(stack.dtype).float()
    if any(update.decay for update in updates):
        weight = weight * column([1 - update.rate * update.decay for update in updates])
    first = torch.lerp(first, grad, 1 - beta1)
    second = (second * beta2).addcmul_(grad, grad, value=1 - beta2)
    denominator = (second.sqrt() / column([root for _, root in corrections])).add_(_EPSILON)
    pace = column([-update.rate / bias for update, (bias, _) in zip(updates, corrections, strict=True)])
    weight = weight + first * pace / denominator
    stack.weights[rows], stack.first[rows], stack.second[rows] = (
        value.to(stack.dtype) for value in (weight, first, second)
    )
    stack.grads[rows] = 0
    stack.recast(None if everyone else slots)
    return norms
