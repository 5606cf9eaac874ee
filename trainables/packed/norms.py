"""Replaces RMS norms by torch's, which is one kernel, and one for its gradient.

transformers writes the norm as six operations, each of which reads and writes all hidden states: a quarter of an H200's
time with passes of 7,000 tokens through a 1.5B base.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch


def attach(model: Any) -> int:
    """Replaces `forward` of every norm that computes what torch's kernel does; gives their number."""
    found = 0
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and _same(module):
            module.forward = partial(_forward, module.weight, module.variance_epsilon)
            found += 1
    return found


def _forward(weight: torch.Tensor, epsilon: float, hidden: torch.Tensor) -> torch.Tensor:
    """The norm of `hidden` [..., features], in its shape and dtype. weight: [features], of any floating dtype."""
    # Under autocast the result would be fp32; the kernel itself computes in fp32 anyway
    with torch.autocast(hidden.device.type, enabled=False):
        return torch.nn.functional.rms_norm(hidden, weight.shape, weight, epsilon)


def _same(module: Any) -> bool:
    """Whether the module computes what torch's kernel does: Gemma's adds 1 to the weight, others have no weight."""
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if weight is None or epsilon is None or weight.ndim != 1:
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, weight.shape[0], generator=generator).to(weight.device, weight.dtype)
    with torch.no_grad():
        ours, theirs = _forward(weight, epsilon, x), module(x)
    within = 1e-5 if weight.dtype == torch.float32 else 2e-2
    return ours.dtype == theirs.dtype and torch.allclose(ours, theirs, atol=within, rtol=within)
