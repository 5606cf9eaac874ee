"""Measures on the base itself whether a row of a packed batch gives the same results as it gives alone.

A base with a convolution, a recurrence or a window over earlier tokens mixes neighbouring rows, and no config says so.
So a few rows pass through the base one by one, as transformers computes them, and through the engine's own path: alone,
behind and before others. There are two comparisons, because rounding hides a small leak from the first:

same         hidden states, losses and gradients are those of the row alone, up to rounding
independent  a row's results do not change when its neighbours are replaced by other rows of the same lengths. All
             kernels then run over the same shapes, so a dense base gives the same bits

Rounding in bf16 grows with the base's depth. It is measured on the unchanged base: by how much a row's results differ
between the places of a batch, as they do in a solo run.
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

from trainables.data.tokens import IGNORED
from trainables.models import base
from trainables.out_of_memory import is_out_of_memory
from trainables.packed import adapted_layers, bases, head, packed_model
from trainables.packed.batches import Batch, ShapeBuckets, collate
from trainables.packed.packed_model import PackedModel
from trainables.packed.rows import FlatRows
from trainables.packed.stack import Stack

SLOTS = 2
"""Slots that the probe needs; it puts an adapter into each."""

_LENGTHS = (17, 2, 257, 70)
"""Tokens of the probe's rows: longer than the kernels of convolutions (4 in known bases), shorter, and longer than the
windows and the chunks of scans (64 to 256). No row is longer than the data's longest; one of that length comes last."""

_SCORED = 64
"""Only a row's last tokens are targets: all logits would be 2 GB for 4,096 tokens and a vocabulary of 150,000."""

_ROUNDING = {"fp32": 1e-4, "bf16": 1e-1}
"""Least tolerance of the first comparison, relative to a token's norm. In bf16 an operation rounds by 2^-8: over 32
layers, with other tilings and the fused norms, results differ by 1e-2, and at the worst token by several times that.
The second comparison finds smaller differences."""
_UNCHANGED = {"fp32": 1e-5, "bf16": 4e-3}
"""Least tolerance of the second comparison: with other neighbours, experts get other batches and round differently."""
_NOISE = 4.0
"""Tolerances are at least this many times the measured rounding, which is the largest of a few rows."""

_RANK = 8
"""Rank of the probe's adapters."""


@dataclass(frozen=True)
class _RowResults:
    """What the base computes for one row."""

    hidden: torch.Tensor
    """[tokens, features] in the base's dtype: the last hidden states."""
    loss: torch.Tensor
    """[] float32: the mean over its targets."""
    gradient: torch.Tensor | None = None
    """[tokens, features] in the base's dtype: the gradient of the summed loss by the row's embeddings; None without a
    backward."""


Layout = tuple[tuple[int, ...], ...]
"""By slot: the indices of its rows, in their order in the batch."""


class SoloReference:
    """What the base, as it was loaded, computes for a few rows, each alone."""

    def __init__(self, model: Any, rows: FlatRows, longest: int) -> None:
        """rows: the data's rows, whose tokens are used. longest: tokens of the data's longest row.

        Raises Unpackable where the base has dropout of its own, or computes values that are not finite.
        """
        self._model, self.longest = model, longest
        lengths = [min(length, longest) for length in _LENGTHS]
        self.short = len(lengths)
        """Number of rows with a backward; the longest of the data has a forward only."""
        if longest > max(lengths):
            lengths.append(longest)
        self.rows = _rows(rows, lengths)
        """The rows, and behind them a twin of each; see `twin`."""
        self.results = [self._alone(row, backward=row < self.short) for row in range(len(lengths))]
        """By row, twins left out: what the base computes for it alone."""
        low = "bf16" if _low_precision(model) else "fp32"
        self.rounding = _ROUNDING[low]
        self._require_no_dropout()
        noise = self._noise(max(range(self.short), key=lengths.__getitem__))
        self.rounding = max(_ROUNDING[low], _NOISE * noise)
        """Tolerance of the first comparison."""
        self.unchanged = max(_UNCHANGED[low], _NOISE * noise)
        """Tolerance of the second comparison."""
        model.eval()

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return int(self.rows.starts[row + 1] - self.rows.starts[row])

    def twin(self, row: int) -> int:
        """The index of the row's twin: a row of the same length with another token at every place."""
        return row + len(self.results)

    def _alone(self, row: int, *, backward: bool) -> _RowResults:
        """The results of a row alone. Raises Unpackable where they are not finite."""
        (results,) = self._solo_batch([row], backward=backward)
        if not bool(torch.isfinite(results.hidden).all()):
            raise bases.unpackable(self._model, "what it computes for a row alone is not finite")
        return results

    def _solo_batch(self, rows: Sequence[int], *, backward: bool) -> list[_RowResults]:
        """The results of rows of one length, computed as one batch of a solo run; with `backward`, gradients too."""
        model, device = self._model.train(backward), base.device()
        ids = torch.stack([self.row(row) for row in rows]).to(device)
        scored = min(_SCORED, ids.shape[1] - 1)
        few = {"logits_to_keep": scored + 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        computing = torch.autocast(device.type, torch.bfloat16, enabled=packed_model.autocast(model))
        with _activations(model) as seen, computing, torch.set_grad_enabled(backward):
            logits = model(input_ids=ids, use_cache=False, **few).logits[:, -scored - 1 : -1].float()
            losses = -logits.log_softmax(-1).gather(-1, ids[:, -scored:].unsqueeze(-1)).sum((1, 2))
            if backward:
                losses.sum().backward()
            gradients = [None] * len(rows) if seen.embedded.grad is None else list(seen.embedded.grad)
            if seen.hidden is None:  # its forward does not call the backbone as a module
                with torch.no_grad():
                    model.base_model(input_ids=ids, use_cache=False)
        assert seen.hidden is not None
        return [
            _RowResults(hidden, loss / scored, gradient)
            for hidden, loss, gradient in zip(seen.hidden, losses.detach(), gradients, strict=True)
        ]

    def row(self, row: int) -> torch.Tensor:
        """[tokens] int64 on the host."""
        return torch.from_numpy(self.rows.ids[self.rows.starts[row] : self.rows.starts[row + 1]].copy())

    def _require_no_dropout(self) -> None:
        """Raises Unpackable where two passes in training mode differ: such dropout draws for all slots from one
        generator."""
        again = self._alone(0, backward=True)
        if _difference(again, self.results[0], gradients=False) > self.rounding:
            where = next(iter(bases.dropouts(self._model)), "something in it")
            raise bases.unpackable(self._model, f"its own dropout ({where}) draws from one stream for all of them")

    def _noise(self, row: int) -> float:
        """By how much a row's results differ between alone and the first and last place of a batch of three."""
        places = self._solo_batch([row, self.twin(row), row], backward=True)
        return max(_difference(places[at], self.results[row]) for at in (0, 2))


def require_independent(packed: PackedModel, stack: Stack, reference: SoloReference) -> None:
    """Compares the engine's path with the rows alone. Raises Unpackable with the first difference.

    stack: of `SLOTS` slots; the probe's adapters stay in it.
    """
    _adapt(packed, stack)
    finding = None
    try:
        finding = next(_findings(packed, stack, reference), None)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        finding = _failure(error)
        traceback.clear_frames(error.__traceback__)
    finally:
        packed.model.eval()
    if finding is not None:
        raise bases.unpackable(packed.model, finding)


def _failure(error: Exception) -> str:
    """Why a pass over rows in a line fails, in a line."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames and frames[-1].f_locals.get("attention_mask", error) is None:
        return "its attention reads the mask itself, and rows in a line have none"
    return f"its forward pass fails with rows in a line ({type(error).__name__}: {error})".splitlines()[0]


def _findings(packed: PackedModel, stack: Stack, reference: SoloReference) -> Iterator[str]:
    """Yields a sentence for the user for each difference, while it makes one comparison after another."""
    order = tuple(range(reference.short))
    half, back = reference.short // 2, order[::-1]
    layouts: list[Layout] = [((row,),) for row in range(1, len(reference.results))]
    if len(reference.results) > reference.short:  # the long row beside a short one is enough to find a leak
        layouts += [((0,), (reference.short,)), ((reference.short,), (0,))]
    together: list[Layout] = [(order[:half], order[half:]), (back[:half], back[half:])]
    for buckets in (None, ShapeBuckets()) if packed.graphs.enabled else (None,):
        yield from _differences_to_solo(packed, reference, ((0,),), buckets)
        if packed.attention.window and packed.attention.window < reference.longest:
            yield f"its attention sees {packed.attention.window} tokens, and rows are longer"
        for layout in (*layouts, *together):
            yield from _differences_to_solo(packed, reference, layout, buckets)
        by_row = (range(0, reference.short, 2), range(1, reference.short, 2))
        by_slot = (range(half), range(half, reference.short))
        for layout, kept in zip(together, (by_slot, by_row), strict=True):
            yield from _leaks(packed, stack, reference, layout, buckets, kept)


def _differences_to_solo(
    packed: PackedModel,
    reference: SoloReference,
    layout: Layout,
    buckets: ShapeBuckets | None,
    found: Sequence[_RowResults] = (),
) -> Iterator[str]:
    """Compares rows in one batch with the same rows alone. found: their results; computed here if it is empty."""
    rows = [row for own in layout for row in own]
    for at, results in enumerate(found or _engine_results(packed, reference, layout, buckets, backward=False)):
        by = _difference(results, reference.results[rows[at]])
        if not by <= reference.rounding:
            size = f"(by {by:.1e} of its size, where rounding is {reference.rounding:.0e})"
            where = f"a row of {reference.length(rows[at])} tokens {_place(reference, rows, at)}"
            why = _other_head(packed, reference, rows[at], results)
            yield f"{why or f'{where} comes out otherwise than alone'} {size}"


def _leaks(
    packed: PackedModel,
    stack: Stack,
    reference: SoloReference,
    layout: Layout,
    buckets: ShapeBuckets | None,
    unchanged: Sequence[range],
) -> Iterator[str]:
    """Compares forward and backward with the rows alone, and with batches in which other rows are replaced by their
    twins.

    unchanged: the places in the batch of the rows that are kept, a range for each such batch. The results of kept rows
    must not differ, nor the gradient of a slot's adapter where all rows of the slot are kept.
    """
    rows = [row for own in layout for row in own]
    stack.grads.zero_()
    before = _engine_results(packed, reference, layout, buckets, backward=True)
    gradients = stack.grads.clone()
    yield from _differences_to_solo(packed, reference, layout, buckets, before)
    for kept in unchanged:
        mixed = iter(row if at in kept else reference.twin(row) for at, row in enumerate(rows))
        stack.grads.zero_()
        after = _engine_results(
            packed, reference, tuple(tuple(next(mixed) for _ in own) for own in layout), buckets, backward=True
        )
        for at in kept:
            by = _difference(after[at], before[at], gradients=False)
            back = _difference(after[at], before[at])
            if not (by <= reference.unchanged and back <= reference.rounding):
                where = f"a row of {reference.length(rows[at])} tokens {_place(reference, rows, at)}"
                size = f"(by {max(by, back):.1e} of its size, where rounding is {reference.unchanged:.0e})"
                yield f"{where} changes with the other rows of the batch {size}"
        if kept.step == 1:
            slot = int(kept.start > 0)
            moved = (stack.grads[slot].float() - gradients[slot].float()).norm() / gradients[slot].float().norm()
            if not moved <= reference.rounding:
                size = f"(by {float(moved):.1e} of its size)"
                yield f"the gradient of one trial's adapter changes with another's rows {size}"


def _engine_results(
    packed: PackedModel, reference: SoloReference, layout: Layout, buckets: ShapeBuckets | None, *, backward: bool
) -> list[_RowResults]:
    """The results of every row of a layout, computed on the engine's path; with `backward`, adapters get gradients."""
    parts = [(slot, numpy.array([row])) for slot, own in enumerate(layout) for row in own]
    batch = collate(parts, reference.rows, int(reference.rows.ids[0]), packed.device, buckets)
    packed.model.train(backward)
    with _activations(packed.model) as seen, torch.set_grad_enabled(backward), packed.shown(batch, training=backward):
        losses = packed.losses(batch, packed.backbone)
        if backward:
            losses.sum().backward()
    assert seen.hidden is not None
    gradient, scored = seen.embedded.grad, batch.target_counts.clamp(min=1)
    return [
        _RowResults(seen.hidden[0, span], loss, None if gradient is None else gradient[0, span])
        for span, loss in zip(_spans(batch), losses.detach() / scored, strict=True)
    ]


def _spans(batch: Batch) -> Iterator[slice]:
    """The tokens of each row of a batch."""
    for segment in batch.segments:
        begin = segment.begin
        for length in segment.lengths:
            yield slice(begin, begin + length)
            begin += length


def _difference(found: _RowResults, expected: _RowResults, *, gradients: bool = True) -> float:
    """The largest of three relative differences: of a token's hidden state, of the loss, and of a token's gradient,
    relative to the largest gradient of a token."""
    values = [_states_difference(found, expected)]
    values.append((found.loss - expected.loss).abs().float() / expected.loss.abs().clamp(min=1.0))
    if gradients and found.gradient is not None and expected.gradient is not None:
        ours, theirs = found.gradient.float(), expected.gradient.float()
        values.append((ours - theirs).norm(dim=-1).max() / theirs.norm(dim=-1).max().clamp(min=1e-30))
    return float(torch.stack(values).max())


def _states_difference(found: _RowResults, expected: _RowResults) -> torch.Tensor:
    """[] float32: the largest relative difference of a token's hidden state."""
    ours, theirs = found.hidden.float(), expected.hidden.float()
    return ((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-30)).max()


def _other_head(packed: PackedModel, reference: SoloReference, row: int, found: _RowResults) -> str:
    """By what the engine's output layer differs from the base's; "" where it does not."""
    alone = reference.results[row]
    if _states_difference(found, alone) > reference.rounding:
        return ""
    targets = reference.row(row)[1:][-_SCORED:].to(packed.device)
    with torch.autocast(packed.device.type, torch.bfloat16, enabled=packed.autocast):
        return head.unlike_own(packed.model, alone.hidden, targets, alone.loss, reference.rounding)


def _place(reference: SoloReference, rows: Sequence[int], at: int) -> str:
    """In words: what lies before and behind the row at `at` in the batch."""
    told = [f"{word} one of {reference.length(rows[place])}"
            for word, place in (("behind", at - 1), ("before", at + 1)) if 0 <= place < len(rows)]  # fmt: skip
    return " and ".join(told) or "by itself in the engine"


def _rows(source: FlatRows, lengths: Sequence[int]) -> FlatRows:
    """Rows of these lengths made of the source's tokens, and a twin of each with other tokens."""
    known = numpy.unique(source.ids[:65536])
    if len(known) < 2:
        known = numpy.append(known, (known[0] + 1) % (known[0] + 2))
    draws = numpy.random.default_rng(0)
    first = draws.integers(len(known), size=sum(lengths))
    second = (first + draws.integers(1, len(known), size=len(first))) % len(known)  # another token at every place
    starts = numpy.cumsum([0, *lengths, *lengths])
    ids = known[numpy.concatenate([first, second])].astype(numpy.int64)
    labels = ids.copy()
    for begin, end in pairwise(starts):
        labels[begin : max(begin, end - _SCORED)] = IGNORED
    return FlatRows(ids, labels, starts)


def _adapt(packed: PackedModel, stack: Stack) -> None:
    """Gives each slot an adapter that does not change the result (B is zero) and gets gradients."""
    stack.grow(_RANK)
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
        for layer in packed.layers.values():
            layer.rescale(slot, 1.0)
    adapted_layers.bind(packed.layers, stack)


def _low_precision(model: Any) -> bool:
    """Whether anything in the base is computed in lower precision than fp32."""
    low = (torch.bfloat16, torch.float16)
    return packed_model.autocast(model) or any(
        parameter.dtype in low or getattr(parameter, "quant_state", None) is not None
        for parameter in model.parameters()
    )


class _Activations:
    """The embeddings and the last hidden states of a pass."""

    embedded: torch.Tensor
    """[rows, tokens, features] in the base's dtype, with its gradient after a backward."""
    hidden: torch.Tensor | None = None
    """[rows, tokens, features] in the base's dtype; None where the backbone was not called as a module."""


@contextmanager
def _activations(model: Any) -> Iterator[_Activations]:
    """Within it the activations of the last pass are kept."""
    seen = _Activations()

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
