"""Whether rows of several trials in one line come out as each would alone: asked of the base itself.

A base whose convolution, recurrence or window looks at the token before lets rows feel their neighbours, and no config
says so. So a few rows go through the base as transformers has it, one by one, and through the engine's own path:
alone, behind and before others. Two comparisons, because rounding hides a small leak from the first:

same         hidden states, losses and gradients are those of the row alone, to rounding
independent  the row's numbers do not change when its neighbours say something else in rows of the same lengths. All
             kernels then run over the same shapes, so a dense base answers to the last bit

Rounding in bf16 grows with the base's depth; it is measured on the unchanged base, as what a row's numbers change by
where it stands at several places of a padded batch, which is what a solo run does with it.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy
import torch

from trainables.data.tokenizing import IGNORED
from trainables.models import base
from trainables.out_of_memory import is_out_of_memory
from trainables.packed import adapted_layers, bases, packed_model
from trainables.packed.batches import Batch, Shapes, collate
from trainables.packed.packed_model import Passes
from trainables.packed.rows import Rows
from trainables.packed.stack import Stack

SLOTS = 2
"""Slots with an adapter each that the probe needs."""

_LENGTHS = (17, 2, 257, 70)
"""Tokens of its rows, in the order in which they lie: beyond a convolution's kernel (4 in use), below it, beyond the
windows and chunks of a scan in use (64 to 256). Rows of the data are never longer than its longest: that comes last."""

_SCORED = 64
"""Targets of a row, its last: logits of all tokens would be 2 GB for a row of 4,096 and 150,000 words."""

_ROUNDING = {"fp32": 1e-4, "bf16": 1e-1}
"""Least tolerance, of a token's size. In bf16 (2^-8 each time) 32 layers, other tilings and the fused norms come to
1e-2, and to several times that at the worst token; what hides below it shows by the other comparison."""
_UNCHANGED = {"fp32": 1e-5, "bf16": 4e-3}
"""The same for numbers that should not change at all; experts get other batches from other neighbours, and round."""
_NOISE = 4.0
"""Tolerance over the noise that was measured: it is the largest of a few rows."""

_RANK = 8


@dataclass(frozen=True)
class _Numbers:
    """What came out for one row: hidden states [tokens, features], its loss a target, and the gradient of the
    embeddings that it was made of, where there was a way back."""

    hidden: torch.Tensor
    loss: torch.Tensor
    gradient: torch.Tensor | None = None


Layout = tuple[tuple[int, ...], ...]
"""Rows of each slot, in the order in which they lie."""


class Alone:
    """A few rows, each by itself through the base as it was loaded. rows: of the data, for their tokens. longest:
    tokens that a row of the data has at most.

    Raises Unpackable where the base draws at random in training.
    """

    def __init__(self, model: Any, rows: Rows, longest: int) -> None:
        self._model, self.longest = model, longest
        lengths = [min(length, longest) for length in _LENGTHS]
        self.short = len(lengths)
        """Rows that go all the way back; the longest of the data goes forward only."""
        if longest > max(lengths):
            lengths.append(longest)
        self.rows = _rows(rows, lengths)
        self.numbers = [self._one(row, back=row < self.short) for row in range(len(lengths))]
        low = "bf16" if _low_precision(model) else "fp32"
        self.rounding = _ROUNDING[low]
        self._require_still()
        noise = self._noise(max(range(self.short), key=lengths.__getitem__))
        self.rounding = max(_ROUNDING[low], _NOISE * noise)
        self.unchanged = max(_UNCHANGED[low], _NOISE * noise)
        model.eval()

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return int(self.rows.starts[row + 1] - self.rows.starts[row])

    def twin(self, row: int) -> int:
        """A row of the same length that says something else."""
        return row + len(self.numbers)

    def _one(self, row: int, *, back: bool) -> _Numbers:
        (numbers,) = self._plain([row], back=back)
        if not bool(torch.isfinite(numbers.hidden).all()):
            raise bases.unpackable(self._model, "what it computes for a row alone is not finite")
        return numbers

    def _plain(self, rows: Sequence[int], *, back: bool) -> list[_Numbers]:
        """Rows of one length as a batch of a solo run, with the gradients of all their losses."""
        model, device = self._model.train(back), base.device()
        ids = torch.stack([torch.from_numpy(self.rows.ids[self._span(row)].copy()) for row in rows]).to(device)
        scored = min(_SCORED, ids.shape[1] - 1)
        few = {"logits_to_keep": scored + 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        computing = torch.autocast(device.type, torch.bfloat16, enabled=packed_model.autocast(model))
        with _seen(model) as seen, computing, torch.set_grad_enabled(back):
            logits = model(input_ids=ids, use_cache=False, **few).logits[:, -scored - 1 : -1].float()
            losses = -logits.log_softmax(-1).gather(-1, ids[:, -scored:].unsqueeze(-1)).sum((1, 2))
            if back:
                losses.sum().backward()
            gradients = [None] * len(rows) if seen.embedded.grad is None else list(seen.embedded.grad)
            if seen.hidden is None:  # its forward goes round the backbone that others call
                with torch.no_grad():
                    model.base_model(input_ids=ids, use_cache=False)
        assert seen.hidden is not None
        return [
            _Numbers(hidden, loss / scored, gradient)
            for hidden, loss, gradient in zip(seen.hidden, losses.detach(), gradients, strict=True)
        ]

    def _span(self, row: int) -> slice:
        return slice(int(self.rows.starts[row]), int(self.rows.starts[row + 1]))

    def _require_still(self) -> None:
        """Two passes in training must agree: what draws at random draws for all slots from one stream."""
        again = self._one(0, back=True)
        if _difference(again, self.numbers[0], gradients=False) > self.rounding:
            where = next(iter(bases.dropouts(self._model)), "something in it")
            raise bases.unpackable(self._model, f"its own dropout ({where}) draws from one stream for all of them")

    def _noise(self, row: int) -> float:
        places = self._plain([row, self.twin(row), row], back=True)
        return max(_difference(places[at], self.numbers[row]) for at in (0, 2))


def require_independent(way: Passes, stack: Stack, alone: Alone) -> None:
    """Compares the engine's path with the rows alone; raises Unpackable with the first difference.

    The stack has `SLOTS` rows, and adapters of the probe's own are left in it.
    """
    _adapt(way, stack)
    finding = None
    try:
        finding = next(_findings(way, stack, alone), None)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        finding = f"its forward pass fails with rows in a line ({type(error).__name__}: {error})".splitlines()[0]
    finally:
        way.model.eval()
    if finding is not None:
        raise bases.unpackable(way.model, finding)


def _findings(way: Passes, stack: Stack, alone: Alone) -> Iterator[str]:
    order = tuple(range(alone.short))
    half, back = alone.short // 2, order[::-1]
    layouts: list[Layout] = [((row,),) for row in range(1, len(alone.numbers))]
    if len(alone.numbers) > alone.short:  # a long row goes beside a short one, which is enough to lean on
        layouts += [((0,), (alone.short,)), ((alone.short,), (0,))]
    together: list[Layout] = [(order[:half], order[half:]), (back[:half], back[half:])]
    for shapes in (None, Shapes()) if way.replays.on else (None,):
        yield from _compared(way, alone, ((0,),), shapes)
        if way.attention.window and way.attention.window < alone.longest:
            yield f"its attention sees {way.attention.window} tokens, and rows are longer"
        for layout in (*layouts, *together):
            yield from _compared(way, alone, layout, shapes)
        by_row, by_slot = (range(0, alone.short, 2), range(1, alone.short, 2)), (range(half), range(half, alone.short))
        for layout, kept in zip(together, (by_slot, by_row), strict=True):
            yield from _trained(way, stack, alone, layout, shapes, kept)


def _compared(
    way: Passes, alone: Alone, layout: Layout, shapes: Shapes | None, found: Sequence[_Numbers] = ()
) -> Iterator[str]:
    """Rows in a line against the same rows alone. found: what came out for them; else they are measured."""
    rows = [row for own in layout for row in own]
    for at, numbers in enumerate(found or _passed(way, alone, layout, shapes, back=False)):
        by = _difference(numbers, alone.numbers[rows[at]])
        if not by <= alone.rounding:
            yield (f"a row of {alone.length(rows[at])} tokens {_place(alone, rows, at)} comes out otherwise than alone "
                   f"(by {by:.1e} of its size, where rounding is {alone.rounding:.0e})")  # fmt: skip


def _trained(
    way: Passes, stack: Stack, alone: Alone, layout: Layout, shapes: Shapes | None, unchanged: Sequence[range]
) -> Iterator[str]:
    """The way back too: against the rows alone, and against itself while all others than `unchanged` say something
    else. Neither a row that says the same may feel it, nor the adapter of a slot that does."""
    rows = [row for own in layout for row in own]
    stack.grads.zero_()
    before = _passed(way, alone, layout, shapes, back=True)
    gradients = stack.grads.clone()
    yield from _compared(way, alone, layout, shapes, before)
    for kept in unchanged:
        said = iter(row if at in kept else alone.twin(row) for at, row in enumerate(rows))
        stack.grads.zero_()
        after = _passed(way, alone, tuple(tuple(next(said) for _ in own) for own in layout), shapes, back=True)
        for at in kept:
            by = _difference(after[at], before[at], gradients=False)
            back = _difference(after[at], before[at])
            if not (by <= alone.unchanged and back <= alone.rounding):
                yield (f"a row of {alone.length(rows[at])} tokens {_place(alone, rows, at)} feels what the others say "
                       f"(by {max(by, back):.1e} of its size, where rounding is {alone.unchanged:.0e})")  # fmt: skip
        if kept.step == 1:
            slot = int(kept.start > 0)
            moved = (stack.grads[slot].float() - gradients[slot].float()).norm() / gradients[slot].float().norm()
            if not moved <= alone.rounding:
                yield f"the gradient of one trial's adapter feels another's rows (by {float(moved):.1e} of its size)"


def _passed(way: Passes, alone: Alone, layout: Layout, shapes: Shapes | None, *, back: bool) -> list[_Numbers]:
    """What the engine's path gives for every row of a layout; with `back` adapters get their gradients too."""
    parts = [(slot, numpy.array([row])) for slot, own in enumerate(layout) for row in own]
    batch = collate(parts, alone.rows, int(alone.rows.ids[0]), way.device, shapes)
    way.model.train(back)
    with _seen(way.model) as seen, torch.set_grad_enabled(back), way.shown(batch, training=back):
        losses = way.losses(batch, way.backbone)
        if back:
            losses.sum().backward()
    assert seen.hidden is not None
    gradient, scored = seen.embedded.grad, batch.counts.clamp(min=1)
    return [
        _Numbers(seen.hidden[0, span], loss, None if gradient is None else gradient[0, span])
        for span, loss in zip(_spans(batch), losses.detach() / scored, strict=True)
    ]


def _spans(batch: Batch) -> Iterator[slice]:
    """Where each row of a batch lies."""
    for segment in batch.segments:
        begin = segment.begin
        for length in segment.lengths:
            yield slice(begin, begin + length)
            begin += length


def _difference(found: _Numbers, expected: _Numbers, *, gradients: bool = True) -> float:
    """The largest relative difference: of a token's hidden state, of the loss, of a token's gradient by the largest."""
    ours, theirs = found.hidden.float(), expected.hidden.float()
    values = [((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-30)).max()]
    values.append((found.loss - expected.loss).abs().float() / expected.loss.abs().clamp(min=1.0))
    if gradients and found.gradient is not None and expected.gradient is not None:
        ours, theirs = found.gradient.float(), expected.gradient.float()
        values.append((ours - theirs).norm(dim=-1).max() / theirs.norm(dim=-1).max().clamp(min=1e-30))
    return float(torch.stack(values).max())


def _place(alone: Alone, rows: Sequence[int], at: int) -> str:
    told = [f"{word} one of {alone.length(rows[place])}"
            for word, place in (("behind", at - 1), ("before", at + 1)) if 0 <= place < len(rows)]  # fmt: skip
    return " and ".join(told) or "by itself in the engine"


def _rows(source: Rows, lengths: Sequence[int]) -> Rows:
    """Rows of these lengths out of the source's tokens, and as many twins of other tokens."""
    known = numpy.unique(source.ids[:65536])
    if len(known) < 2:
        known = numpy.append(known, (known[0] + 1) % (known[0] + 2))
    draws = numpy.random.default_rng(0)
    first = draws.integers(len(known), size=sum(lengths))
    second = (first + draws.integers(1, len(known), size=len(first))) % len(known)  # another one at every place
    starts = numpy.cumsum([0, *lengths, *lengths])
    ids = known[numpy.concatenate([first, second])].astype(numpy.int64)
    labels = ids.copy()
    for begin, end in pairwise(starts):
        labels[begin : max(begin, end - _SCORED)] = IGNORED
    return Rows(ids, labels, starts)


def _adapt(way: Passes, stack: Stack) -> None:
    """Adapters that change nothing (B is zero), so that the base alone says what comes out, and get gradients."""
    stack.fit(_RANK)
    draws = torch.Generator().manual_seed(0)
    for slot in range(SLOTS):
        adapter = {
            name: (
                torch.randn(_RANK, shape.inputs, generator=draws) / shape.inputs**0.5,
                torch.zeros(shape.outputs, _RANK),
            )
            for name, shape in stack.shapes.items()
        }
        stack.put(slot, adapter, _RANK)
        for site in way.sites.values():
            site.rescale(slot, 1.0)
    adapted_layers.bind(way.sites, stack)


def _low_precision(model: Any) -> bool:
    """Whether anything in the base is computed with fewer digits than fp32 has."""
    low = (torch.bfloat16, torch.float16)
    return packed_model.autocast(model) or any(
        parameter.dtype in low or getattr(parameter, "quant_state", None) is not None
        for parameter in model.parameters()
    )


class _Seen:
    """embedded: what the rows were embedded to, with its gradient. hidden: what the last layer gave."""

    embedded: torch.Tensor
    hidden: torch.Tensor | None = None


@contextmanager
def _seen(model: Any) -> Iterator[_Seen]:
    """What goes into a pass and what comes out of the layers."""
    seen = _Seen()

    def embedded(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        seen.embedded = output.detach().requires_grad_(torch.is_grad_enabled())
        return seen.embedded

    def hidden(_: Any, __: Any, output: Any) -> None:
        seen.hidden = output.last_hidden_state.detach()

    hooks = [
        model.get_input_embeddings().register_forward_hook(embedded),
        model.base_model.register_forward_hook(hidden),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
