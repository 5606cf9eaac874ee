"""A linear layer of the base with the adapters of several slots on it, as one autograd function.

The tokens of a slot are consecutive, so a batch is a list of segments:
`result[segment] = base(x[segment]) + scale * (x A^T) B^T`. The function computes the base's product too: it adds the
adapters' products to the base's result in place, forward and backward, instead of allocating a second tensor of that
size and a third one for the sum. The gradients of A and B go straight into the stack's buffers: for a slice of a
stacked parameter, autograd would fill a tensor of the stack's size with zeros for each slot.

Three forms with the same result, chosen by `form`:

each     one product for each segment at its true rank, which is what a solo run computes
batched  one batched product at the padded rank, for segments of one length
grouped  one grouped product at the padded rank, for bf16 on a GPU
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainables.packed.layer_context import AdaptedLinear, BatchContext

Hidden = list[torch.Tensor]
"""What a form saves for its backward, in the compute dtype. each: x A^T of every segment with an adapter here, [tokens,
rank]. batched: scale * x A^T, [segments, tokens, padded rank]. grouped: x A^T, [tokens, padded rank]."""


class MultiLoRALinear(torch.autograd.Function):
    """The layer with all adapters; its backward adds their gradients to the stack's, in place."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, layer: AdaptedLinear) -> torch.Tensor:
        """x: [1, tokens, in], of any floating dtype. anchor: [] float32, which requires a gradient, so that the result
        does. Gives [1, tokens, out] in the base's dtype."""
        context = layer.context
        result = layer.base(x)
        inputs = x.reshape(-1, layer.shape.inputs).to(layer.a.dtype)
        mask = context.mask(layer, inputs)
        add, _ = _FORMS[form(context, inputs)]
        hidden = add(result.view(-1, layer.shape.outputs), _dropped(inputs, mask), layer)
        # Unmasked: layers share their inputs, and a masked copy for each would take as much memory as its mask
        ctx.save_for_backward(inputs, mask, *hidden)
        ctx.layer, ctx.like = layer, (x.shape, x.dtype)
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        """grad: [1, tokens, out] in the result's dtype. Gives the gradient of x, in x's shape and dtype."""
        layer, (shape, dtype) = ctx.layer, ctx.like
        plain, mask, *hidden = ctx.saved_tensors
        inputs = _dropped(plain, mask)
        flat = grad.reshape(-1, layer.shape.outputs)
        own = flat.to(inputs.dtype)
        _, back = _FORMS[form(layer.context, inputs)]
        if not ctx.needs_input_grad[0]:
            back(own, inputs, hidden, layer, None)
            return None, None, None
        grad_x = layer.frozen.input_grad(flat).to(dtype)
        if mask is None and grad_x.dtype == inputs.dtype:
            back(own, inputs, hidden, layer, grad_x)
        else:
            more = torch.zeros_like(inputs)
            back(own, inputs, hidden, layer, more)
            grad_x += more if mask is None else more.mul_(mask)
        return grad_x.view(shape), None, None


def _dropped(inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The inputs after dropout, in their shape and dtype. inputs, mask: [tokens, in]."""
    return inputs if mask is None else inputs * mask


def form(context: BatchContext, inputs: torch.Tensor) -> str:
    """The form for a batch, by name: on a CPU the one without padded ranks, on a GPU the one with the fewest launches.

    inputs: [tokens, in] in the compute dtype.
    """
    if not inputs.is_cuda:
        return "each"
    if context.uniform:
        return "batched"
    return "grouped" if inputs.dtype == torch.bfloat16 else "each"


def _forward_each(out: torch.Tensor, inputs: torch.Tensor, layer: AdaptedLinear) -> Hidden:
    """Adds the adapters' products to `out` [tokens, out], in the base's dtype. The other two forms do the same.

    inputs: [tokens, in] after dropout, in the compute dtype.
    """
    hidden = []
    for segment in layer.context.segments:
        slot, scale = segment.slot, layer.scales[segment.slot]
        if not scale:
            continue
        rank = layer.ranks[slot]
        own = inputs[segment.begin : segment.end]
        h = own @ layer.a[slot, :rank].t()
        _accumulate(out[segment.begin : segment.end], h, layer.b[slot, :, :rank].t(), scale)
        hidden.append(h)
    return hidden


def _backward_each(
    grad: torch.Tensor, inputs: torch.Tensor, hidden: Hidden, layer: AdaptedLinear, grad_x: torch.Tensor | None
) -> None:
    """Adds to the gradients of A and B, and to `grad_x` [tokens, in] if it is given. The other two forms do the same.

    grad: [tokens, out]; inputs: [tokens, in] after dropout; all in the compute dtype.
    """
    kept = iter(hidden)
    for segment in layer.context.segments:
        slot, scale = segment.slot, layer.scales[segment.slot]
        if not scale:
            continue
        rank, tokens, h = layer.ranks[slot], slice(segment.begin, segment.end), next(kept)
        own = grad[tokens]
        grad_h = (own @ layer.b[slot, :, :rank]).mul_(scale)
        _accumulate(layer.grad_b[slot, :, :rank], own.t(), h, scale)
        _accumulate(layer.grad_a[slot, :rank], grad_h.t(), inputs[tokens], 1.0)
        if grad_x is not None:
            grad_x[tokens].addmm_(grad_h, layer.a[slot, :rank])


def _accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """`total += scale * left @ right`, rounded as PEFT rounds where the dtypes differ.

    total: [m, n] in any floating dtype; left: [m, k] and right: [k, n] in the compute dtype.
    """
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_((left @ right).mul_(scale))


def _forward_batched(out: torch.Tensor, inputs: torch.Tensor, layer: AdaptedLinear) -> Hidden:
    """As `_forward_each`. out: [tokens, out]; inputs: [tokens, in]."""
    context = layer.context
    h = torch.bmm(_by_segment(inputs, context), layer.a[context.slots].transpose(1, 2)).mul_(layer.scale[context.slots])
    _accumulate_batch(_by_segment(out, context), h, layer.b[context.slots].transpose(1, 2))
    return [h]


def _backward_batched(
    grad: torch.Tensor, inputs: torch.Tensor, hidden: Hidden, layer: AdaptedLinear, grad_x: torch.Tensor | None
) -> None:
    """As `_backward_each`. grad: [tokens, out]; inputs and grad_x: [tokens, in]."""
    context = layer.context
    own = _by_segment(grad, context)
    grad_h = torch.bmm(own, layer.b[context.slots]).mul_(layer.scale[context.slots])
    _accumulate_slots(layer.grad_b, own.transpose(1, 2), hidden[0], context)
    _accumulate_slots(layer.grad_a, grad_h.transpose(1, 2), _by_segment(inputs, context), context)
    if grad_x is not None:
        _by_segment(grad_x, context).baddbmm_(grad_h, layer.a[context.slots])


def _accumulate_batch(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`total += left @ right`. total: [segments, m, n]; left: [segments, m, k]; right: [segments, k, n]."""
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(torch.bmm(left, right))


def _accumulate_slots(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, context: BatchContext) -> None:
    """`total[slots] += left @ right`, for the slots of the batch; without a copy of `total[slots]`.

    total: [slots, m, n] in the adapters' dtype; left: [segments, m, k], right: [segments, k, n] in the compute dtype.
    """
    if isinstance(context.slots, slice):
        _accumulate_batch(total[context.slots], left, right)
    else:
        total.index_add_(0, context.slots, torch.bmm(left, right).to(total.dtype))


def _forward_grouped(out: torch.Tensor, inputs: torch.Tensor, layer: AdaptedLinear) -> Hidden:
    """As `_forward_each`. out: [tokens, out]; inputs: [tokens, in]."""
    context, ends = layer.context, layer.context.segment_ends
    h = _grouped(inputs, layer.a[context.slots].transpose(1, 2), ends)
    scaled = layer.b[context.slots] * layer.scale[context.slots]
    out.add_(_grouped(h, scaled.transpose(1, 2), ends))
    return [h]


def _backward_grouped(
    grad: torch.Tensor, inputs: torch.Tensor, hidden: Hidden, layer: AdaptedLinear, grad_x: torch.Tensor | None
) -> None:
    """As `_backward_each`. grad: [tokens, out]; inputs and grad_x: [tokens, in]."""
    context, ends = layer.context, layer.context.segment_ends
    scale = layer.scale[context.slots]
    grad_h = _grouped(grad, layer.b[context.slots] * scale, ends)
    for total, more in (
        (layer.grad_b, _grouped(grad.t(), hidden[0], ends).mul_(scale)),
        (layer.grad_a, _grouped(grad_h.t(), inputs, ends)),
    ):
        if isinstance(context.slots, slice):
            total[context.slots].add_(more)
        else:
            total.index_add_(0, context.slots, more.to(total.dtype))
    if grad_x is not None:
        grad_x.add_(_grouped(grad_h, layer.a[context.slots], ends))


def _grouped(left: torch.Tensor, right: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """One product for each segment, in bf16: left [tokens, k] and right [segments, k, n] give [tokens, n]; left
    [m, tokens] and right [tokens, n] give [segments, m, n]. ends: [segments] int32, the token after each segment's
    last."""
    return torch.nn.functional.grouped_mm(left, right, offs=ends)


def _by_segment(x: torch.Tensor, context: BatchContext) -> torch.Tensor:
    """`x` [tokens, features] viewed as [segments, tokens of a segment, features]: all segments have one length."""
    return x.view(len(context.segments), -1, x.shape[-1])


_FORMS: dict[str, tuple[Callable[..., Hidden], Callable[..., None]]] = {
    "each": (_forward_each, _backward_each),
    "batched": (_forward_batched, _backward_batched),
    "grouped": (_forward_grouped, _backward_grouped),
}
