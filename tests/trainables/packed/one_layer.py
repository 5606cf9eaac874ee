"""Makes an adapted layer without a base, and batches of segments without rows."""

from __future__ import annotations

from typing import Any

import torch

from trainables.packed.adapted_layers import bind
from trainables.packed.batches import Batch, Segment
from trainables.packed.frozen_linear import frozen_linear
from trainables.packed.layer_context import AdaptedLinear, BatchContext
from trainables.packed.stack import Stack


def stacked(dtype: torch.dtype, ranks: list[int], seed: int = 0) -> tuple[Stack, AdaptedLinear]:
    """Makes a layer from 6 to 5 features, with an adapter in each slot."""
    torch.manual_seed(seed)
    linear = torch.nn.Linear(6, 5, dtype=dtype).requires_grad_(False)
    layer = AdaptedLinear("x", frozen_linear("x", linear), BatchContext())
    layer.allocate(len(ranks))
    layer.base = linear.forward
    stack = Stack({"x": layer.shape}, len(ranks), dtype, dtype, "cpu")
    stack.grow(max(ranks))
    for slot, rank in enumerate(ranks):
        stack.put(slot, {"x": (torch.randn(rank, 6), torch.randn(5, rank))}, rank)
        layer.scales[slot] = 0.5 + slot
    bind({"x": layer}, stack)
    return stack, layer


def segments_batch(segments: tuple[Segment, ...], **more: Any) -> Batch:
    """Makes a batch of these segments, which by default have one length."""
    nothing = torch.empty(0)
    given: dict[str, Any] = {
        "uniform": True, "bucketed": False, "padded_len": 0, "scatter_index": None, "grid": None, "width": 1,
    } | more  # fmt: skip
    return Batch(
        input_ids=torch.zeros(1, segments[-1].end), position_ids=nothing, segments=segments, target_positions=nothing,
        target_ids=nothing, target_counts=nothing, segment_ends=nothing, **given,
    )  # fmt: skip
