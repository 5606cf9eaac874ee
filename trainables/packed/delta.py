"""What the adapters add to a linear layer's output, several slots in one call.

The tokens of a slot are consecutive, so a batch is a list of segments. `result[segment] += scale * (x A^T) B^T`, and
the gradients go straight into the stack's buffers: what autograd would do with a slice of a stacked parameter is write
a whole stack of zeros for each slot.

Two forms with the same result, chosen by `_batched`: one product for each segment at its true rank, which is what a
solo run computes, and one batched product at the padded rank, which needs segments of one length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from trainables.packed.rows import Segment
    from trainables.packed.sites import Site


class Delta(torch.autograd.Function):
    """`result` plus every slot's `scale * B A x` on its own tokens; accumulates the adapters' gradients in place."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, x: torch.Tensor, anchor: torch.Tensor, site: Site) -> torch.Tensor:
        segments = site.board.segments
        inputs = x.reshape(-1, site.shape.inputs).to(site.a.dtype)
        masks = site.board.masks(site, inputs)
        if masks is not None:
            inputs = _masked(inputs, segments, masks)
        out = result.reshape(-1, site.shape.outputs).clone()
        batched = _batched(segments)
        hidden = _add_batched(out, inputs, segments, site) if batched else _add_each(out, inputs, segments, site)
        ctx.save_for_backward(inputs, *hidden)
        ctx.site, ctx.segments, ctx.masks, ctx.batched, ctx.shape = site, segments, masks, batched, x.shape
        ctx.x_dtype = x.dtype
        return out.view(result.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        site, segments = ctx.site, ctx.segments
        inputs, *hidden = ctx.saved_tensors
        flat = grad.reshape(-1, site.shape.outputs).to(inputs.dtype)
        into = torch.zeros_like(inputs) if ctx.needs_input_grad[1] else None
        back = _back_batched if ctx.batched else _back_each
        back(flat, inputs, hidden, segments, site, into)
        if into is None:
            return grad, None, None, None
        if ctx.masks is not None:
            into = _masked(into, segments, ctx.masks)
        return grad, into.to(ctx.x_dtype).view(ctx.shape), None, None


def _masked(x: torch.Tensor, segments: tuple[Segment, ...], masks: list[torch.Tensor | None]) -> torch.Tensor:
    x = x.clone()
    for segment, mask in zip(segments, masks, strict=True):
        if mask is not None:
            x[segment.begin : segment.end].mul_(mask)
    return x


def _batched(segments: tuple[Segment, ...]) -> bool:
    """Several segments of one length. On a CPU both forms are as fast, on a GPU launches count."""
    length = segments[0].end - segments[0].begin
    return len(segments) > 1 and all(segment.end - segment.begin == length for segment in segments)


def _add_each(out: torch.Tensor, inputs: torch.Tensor, segments: tuple[Segment, ...], site: Site) -> list[torch.Tensor]:
    hidden = []
    for segment in segments:
        slot, scale = segment.slot, site.scales[segment.slot]
        if not scale:
            continue
        rank = site.ranks[slot]
        own = inputs[segment.begin : segment.end]
        h = own @ site.a[slot, :rank].t()
        _accumulate(out[segment.begin : segment.end], h, site.b[slot, :, :rank].t(), scale)
        hidden.append(h)
    return hidden


def _back_each(
    grad: torch.Tensor,
    inputs: torch.Tensor,
    hidden: list[torch.Tensor],
    segments: tuple[Segment, ...],
    site: Site,
    into: torch.Tensor | None,
) -> None:
    kept = iter(hidden)
    for segment in segments:
        slot, scale = segment.slot, site.scales[segment.slot]
        if not scale:
            continue
        rank, tokens, h = site.ranks[slot], slice(segment.begin, segment.end), next(kept)
        own = grad[tokens]
        grad_h = (own @ site.b[slot, :, :rank]).mul_(scale)
        _accumulate(site.grad_b[slot, :, :rank], own.t(), h, scale)
        _accumulate(site.grad_a[slot, :rank], grad_h.t(), inputs[tokens], 1.0)
        if into is not None:
            torch.mm(grad_h, site.a[slot, :rank], out=into[tokens])


def _accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """`total += scale * left @ right`, rounded as PEFT rounds where the precisions differ."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_((left @ right).mul_(scale))


def _add_batched(
    out: torch.Tensor, inputs: torch.Tensor, segments: tuple[Segment, ...], site: Site
) -> list[torch.Tensor]:
    slots, scales = _slots(segments), _scales(segments, site, inputs)
    h = torch.bmm(_apart(inputs, segments), site.a[slots].transpose(1, 2))
    delta = torch.bmm(h, site.b[slots].transpose(1, 2))
    _apart(out, segments).add_(delta.mul_(scales))
    return [h]


def _back_batched(
    grad: torch.Tensor,
    inputs: torch.Tensor,
    hidden: list[torch.Tensor],
    segments: tuple[Segment, ...],
    site: Site,
    into: torch.Tensor | None,
) -> None:
    slots, scales = _slots(segments), _scales(segments, site, inputs)
    own = _apart(grad, segments)
    grad_h = torch.bmm(own, site.b[slots]).mul_(scales)
    grad_b = torch.bmm(own.transpose(1, 2), hidden[0]).mul_(scales)
    grad_a = torch.bmm(grad_h.transpose(1, 2), _apart(inputs, segments))
    # Not `+=` on an indexed view: with a list of slots that would read and write the whole part once more
    for total, more in ((site.grad_a, grad_a), (site.grad_b, grad_b)):
        if isinstance(slots, slice):
            total[slots].add_(more)
        else:
            total.index_add_(0, torch.tensor(slots, device=total.device), more.to(total.dtype))
    if into is not None:
        torch.bmm(grad_h, site.a[slots], out=_apart(into, segments))


def _apart(x: torch.Tensor, segments: tuple[Segment, ...]) -> torch.Tensor:
    return x.view(len(segments), -1, x.shape[-1])


def _slots(segments: tuple[Segment, ...]) -> slice | list[int]:
    """Neighbouring slots as a slice, which copies nothing."""
    slots = [segment.slot for segment in segments]
    if slots == list(range(slots[0], slots[0] + len(slots))):
        return slice(slots[0], slots[0] + len(slots))
    return slots


def _scales(segments: tuple[Segment, ...], site: Site, like: torch.Tensor) -> torch.Tensor:
    return (
        torch.tensor([site.scales[segment.slot] for segment in segments], dtype=like.dtype)
        .to(like.device, non_blocking=True)
        .view(-1, 1, 1)
    )
