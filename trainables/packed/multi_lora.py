"""A linear layer of the base with the adapters of several slots on it, in one call.

The tokens of a slot are consecutive, so a batch is a list of segments:
`result[segment] = base(x[segment]) + scale * (x A^T) B^T`. One autograd function does the base's product too: it adds
the adapters' into what the base has computed, forward and backward, instead of making a second tensor of that size and
a third one for the sum. The gradients of A and B go straight into the stack's buffers: what autograd would do with a
slice of a stacked parameter is write a whole stack of zeros for each slot.

Three forms with the same result, chosen by `form`:

each     one product for each segment at its true rank, which is what a solo run computes
batched  one batched product at the padded rank, for segments of one length
grouped  one grouped product at the padded rank, for bf16 on a GPU
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from trainables.packed.layer_context import Board, Site

Hidden = list[torch.Tensor]
"""What a form keeps of its forward pass: scale * x A^T, or x A^T by segments."""


class Delta(torch.autograd.Function):
    """The layer with all adapters; accumulates their gradients in place."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, site: Site) -> torch.Tensor:
        board = site.board
        result = site.base(x)
        inputs = x.reshape(-1, site.shape.inputs).to(site.a.dtype)
        mask = board.mask(site, inputs)
        add, _ = _FORMS[form(board, inputs)]
        hidden = add(result.view(-1, site.shape.outputs), _dropped(inputs, mask), site)
        # Unmasked, since layers share their inputs: masked copies of them would take as much memory as the masks
        ctx.save_for_backward(inputs, mask, *hidden)
        ctx.site, ctx.like = site, (x.shape, x.dtype)
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        site, (shape, dtype) = ctx.site, ctx.like
        plain, mask, *hidden = ctx.saved_tensors
        inputs = _dropped(plain, mask)
        flat = grad.reshape(-1, site.shape.outputs)
        own = flat.to(inputs.dtype)
        _, back = _FORMS[form(site.board, inputs)]
        if not ctx.needs_input_grad[0]:
            back(own, inputs, hidden, site, None)
            return None, None, None
        into = site.frozen.backward(flat).to(dtype)
        if mask is None and into.dtype == inputs.dtype:
            back(own, inputs, hidden, site, into)
        else:
            more = torch.zeros_like(inputs)
            back(own, inputs, hidden, site, more)
            into += more if mask is None else more.mul_(mask)
        return into.view(shape), None, None


def _dropped(inputs: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return inputs if mask is None else inputs * mask


def form(board: Board, like: torch.Tensor) -> str:
    """Which form a batch takes. On a CPU the true ranks count, on a GPU the launches."""
    if not like.is_cuda:
        return "each"
    if board.even:
        return "batched"
    return "grouped" if like.dtype == torch.bfloat16 else "each"


def _add_each(out: torch.Tensor, inputs: torch.Tensor, site: Site) -> Hidden:
    hidden = []
    for segment in site.board.segments:
        slot, scale = segment.slot, site.scales[segment.slot]
        if not scale:
            continue
        rank = site.ranks[slot]
        own = inputs[segment.begin : segment.end]
        h = own @ site.a[slot, :rank].t()
        _accumulate(out[segment.begin : segment.end], h, site.b[slot, :, :rank].t(), scale)
        hidden.append(h)
    return hidden


def _back_each(grad: torch.Tensor, inputs: torch.Tensor, hidden: Hidden, site: Site, into: torch.Tensor | None) -> None:
    kept = iter(hidden)
    for segment in site.board.segments:
        slot, scale = segment.slot, site.scales[segment.slot]
        if not scale:
            continue
        rank, tokens, h = site.ranks[slot], slice(segment.begin, segment.end), next(kept)
        own = grad[tokens]
        grad_h = (own @ site.b[slot, :, :rank]).mul_(scale)
        _accumulate(site.grad_b[slot, :, :rank], own.t(), h, scale)
        _accumulate(site.grad_a[slot, :rank], grad_h.t(), inputs[tokens], 1.0)
        if into is not None:
            into[tokens].addmm_(grad_h, site.a[slot, :rank])


def _accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """`total += scale * left @ right`, rounded as PEFT rounds where the precisions differ."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, alpha=scale)
    else:
        total.add_((left @ right).mul_(scale))


def _add_batched(out: torch.Tensor, inputs: torch.Tensor, site: Site) -> Hidden:
    board = site.board
    h = torch.bmm(_apart(inputs, board), site.a[board.slots].transpose(1, 2)).mul_(site.scale[board.slots])
    _accumulate_batch(_apart(out, board), h, site.b[board.slots].transpose(1, 2))
    return [h]


def _back_batched(
    grad: torch.Tensor, inputs: torch.Tensor, hidden: Hidden, site: Site, into: torch.Tensor | None
) -> None:
    board = site.board
    own = _apart(grad, board)
    grad_h = torch.bmm(own, site.b[board.slots]).mul_(site.scale[board.slots])
    _accumulate_slots(site.grad_b, own.transpose(1, 2), hidden[0], board)
    _accumulate_slots(site.grad_a, grad_h.transpose(1, 2), _apart(inputs, board), board)
    if into is not None:
        _apart(into, board).baddbmm_(grad_h, site.a[board.slots])


def _accumulate_batch(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(torch.bmm(left, right))


def _accumulate_slots(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, board: Board) -> None:
    """`total[slots] += left @ right`. Not so written: with a list of slots that would read and write all once more."""
    if isinstance(board.slots, slice):
        _accumulate_batch(total[board.slots], left, right)
    else:
        total.index_add_(0, board.slots, torch.bmm(left, right).to(total.dtype))


def _add_grouped(out: torch.Tensor, inputs: torch.Tensor, site: Site) -> Hidden:
    board, ends = site.board, site.board.ends
    h = _grouped(inputs, site.a[board.slots].transpose(1, 2), ends)
    scaled = site.b[board.slots] * site.scale[board.slots]
    out.add_(_grouped(h, scaled.transpose(1, 2), ends))
    return [h]


def _back_grouped(
    grad: torch.Tensor, inputs: torch.Tensor, hidden: Hidden, site: Site, into: torch.Tensor | None
) -> None:
    board, ends = site.board, site.board.ends
    scale = site.scale[board.slots]
    grad_h = _grouped(grad, site.b[board.slots] * scale, ends)
    for total, more in (
        (site.grad_b, _grouped(grad.t(), hidden[0], ends).mul_(scale)),
        (site.grad_a, _grouped(grad_h.t(), inputs, ends)),
    ):
        if isinstance(board.slots, slice):
            total[board.slots].add_(more)
        else:
            total.index_add_(0, board.slots, more.to(total.dtype))
    if into is not None:
        into.add_(_grouped(grad_h, site.a[board.slots], ends))


def _grouped(left: torch.Tensor, right: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.grouped_mm(left, right, offs=ends)


def _apart(x: torch.Tensor, board: Board) -> torch.Tensor:
    return x.view(len(board.segments), -1, x.shape[-1])


_FORMS: dict[str, tuple[Callable[..., Hidden], Callable[..., None]]] = {
    "each": (_add_each, _back_each),
    "batched": (_add_batched, _back_batched),
    "grouped": (_add_grouped, _back_grouped),
}
