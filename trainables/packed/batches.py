"""Micro-batches of several slots as one batch, and the few shapes that batches are padded to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy
import torch

from trainables.data.tokens import IGNORED
from trainables.packed.rows import FlatRows, Indices

_MAX_PADDING = 1.25
"""All segments are padded to the longest one where that makes the batch at most this many times its rows' tokens."""
_ALIGNED = 8
"""On a GPU a segment's tokens are a multiple of this: grouped products read 16 bytes at a time, 8 values in bf16."""
_FEW_TOKENS = 4096
"""Tokens of a batch. Below it kernel launches limit a GPU with all but the largest bases, and padding costs less than
one more shape."""
_SHORT = 1024
"""Width of attention's lines, in tokens, up to which twice the width costs little: 5% of a 1.5B base's time."""


SlotRows = tuple[int, Indices]
"""One part of a batch: a slot, and the indices [rows] int64 of rows whose losses are summed together."""


@dataclass(frozen=True)
class Segment:
    """The consecutive tokens of one slot in a batch."""

    slot: int
    """The slot's place in the engine."""
    lengths: tuple[int, ...]
    """Tokens of each row, padding excluded."""
    begin: int
    """The index of its first token in the batch."""
    end: int
    """The index behind its last token, padding included."""


@dataclass(frozen=True)
class AttentionGrid:
    """The rows of a batch as lines of one width, as attention reads them."""

    rows: int
    """Lines: one for each row."""
    width: int
    """Cells of a line."""
    cells: torch.Tensor
    """[tokens with a cell] int64: the cell of each token, counted line by line."""
    tokens: torch.Tensor | None
    """[tokens with a cell] int64: those tokens. None where every token has a cell; padding of a batch that is not
    bucketed has none."""


@dataclass(frozen=True)
class Batch:
    """Rows of several slots, one after another: linear layers compute no padding within a segment."""

    input_ids: torch.Tensor
    """[1, tokens] int64."""
    position_ids: torch.Tensor
    """[1, tokens] int64: each row counts from 0."""
    segments: tuple[Segment, ...]
    """In the order of their tokens."""
    grid: AttentionGrid | None
    """None where all rows have one length and no padding: they are lines already."""
    width: int
    """Tokens of attention's lines: those of the longest row, or more where the batch is bucketed."""
    target_positions: torch.Tensor
    """[targets] int64: the tokens whose successor is a target, part by part."""
    target_ids: torch.Tensor
    """[targets] int64: the successors."""
    target_counts: torch.Tensor
    """[parts] int64: targets of each part."""
    segment_ends: torch.Tensor
    """[segments] int32: the token after each segment's last."""
    uniform: bool
    """Whether all segments have one length."""
    bucketed: bool
    """Whether it is padded to a shape of `ShapeBuckets`. Only then are the next two fields set."""
    padded_len: int
    """Dropout masks have this many tokens a segment: at least those of its rows. 0 where the batch is not bucketed."""
    scatter_index: torch.Tensor | None
    """[tokens] int64: each token's index once every segment has `padded_len` tokens; None where each has that many
    already."""

    @property
    def layer_inputs(self) -> list[torch.Tensor]:
        """All tensors of the batch that the base's layers and adapters read, in the shapes and dtypes above."""
        found = [self.input_ids, self.position_ids, self.segment_ends, self.scatter_index]
        if self.grid is not None:
            found += [self.grid.cells, self.grid.tokens]
        return [tensor for tensor in found if tensor is not None]

    def copy(self) -> Batch:
        """The same batch with copies of its `layer_inputs`."""
        grid, scatter_index = self.grid, self.scatter_index
        if grid is not None:
            grid = replace(grid, cells=grid.cells.clone(), tokens=None if grid.tokens is None else grid.tokens.clone())
        return replace(
            self,
            input_ids=self.input_ids.clone(),
            position_ids=self.position_ids.clone(),
            segment_ends=self.segment_ends.clone(),
            scatter_index=None if scatter_index is None else scatter_index.clone(),
            grid=grid,
        )


class ShapeBuckets:
    """The few shapes that batches are padded to: those of earlier batches where they are near enough."""

    def __init__(self) -> None:
        self._tokens: set[int] = set()
        self._widths: set[int] = set()

    def tokens(self, needed: int) -> int:
        """Tokens that a batch of `needed` tokens is padded to."""
        between, most = (8, 1.125) if needed >= _FEW_TOKENS else (4, 1.25)
        return _bucket(self._tokens, needed, most, between)

    def width(self, needed: int) -> int:
        """The width of attention's lines for rows of up to `needed` tokens."""
        return _bucket(self._widths, needed, 2.0 if needed <= _SHORT else 1.25, 2)


def _bucket(sizes: set[int], needed: int, most: float, between: int) -> int:
    """The largest of `sizes` within `most` times `needed`, or a new one, which is added.

    between: how many sizes lie from one power of two to the next.
    """
    multiple = max(_ALIGNED, 2 ** (needed.bit_length() - 1) // between)
    rounded_up = -(-needed // multiple) * multiple
    found = max((size for size in sizes if needed <= size <= most * needed), default=rounded_up)
    sizes.add(found)
    return found


def collate(
    parts: Sequence[SlotRows], rows: FlatRows, padding: int, device: torch.device, buckets: ShapeBuckets | None = None
) -> Batch:
    """Makes one batch of the rows of all parts, on `device`. Parts of one slot are consecutive, and make one segment.

    padding: the id of the token that segments are padded with. On a GPU they are padded to one length where that costs
    little, because one batched product then serves them all, or else to a multiple of eight. buckets: pads the batch to
    one of these shapes; segments are then padded to a multiple of eight, and the last one takes the rest.
    """
    slots = [(slot, [indices for _, indices in own]) for slot, own in groupby(parts, key=lambda part: part[0])]
    lengths = [rows.lengths(numpy.concatenate(own)).astype(int) for _, own in slots]
    every = numpy.concatenate(lengths)
    alike = len(every) > 1 and every.min() == every.max()  # their shapes recur by themselves
    aligned = buckets is not None or device.type == "cuda"
    sizes = [int(own.sum()) for own in lengths]
    begins, total = _places(sizes, aligned=aligned, buckets=None if alike else buckets)
    ids = numpy.full(total, padding, dtype=numpy.int64)
    labels = numpy.full(total, IGNORED, dtype=numpy.int64)
    position_ids = numpy.zeros(total, dtype=numpy.int64)
    counts, kept = [], []
    for (_, own), own_lengths, begin in zip(slots, lengths, begins[:-1], strict=True):
        place, length = begin, iter(own_lengths)
        for indices in own:
            start = place
            for index in indices:
                end = place + int(next(length))
                source = slice(rows.starts[index], rows.starts[index + 1])
                ids[place:end], labels[place:end] = rows.ids[source], rows.labels[source]
                labels[place] = IGNORED  # the first token of a row is no token's successor
                position_ids[place:end] = numpy.arange(end - place)
                place = end
            counts.append(int(numpy.count_nonzero(labels[start:place] != IGNORED)))
        kept.append(numpy.arange(begin, place))
    positions = numpy.flatnonzero(labels[1:] != IGNORED)
    padded_len, scatter_index = _scatter_index(sizes, begins, buckets) if buckets else (0, None)
    if buckets:
        (cells, width), real = _bucketed_cells(lengths, begins, buckets), None
    else:
        cells, real, width = _line_cells(lengths, numpy.concatenate(kept), total)
    on_device = _to(device, {
        "input_ids": ids[None],
        "position_ids": position_ids[None],
        "target_positions": positions,
        "target_ids": labels[positions + 1],
        "target_counts": numpy.array(counts, dtype=numpy.int64),
        "segment_ends": numpy.array(begins[1:], dtype=numpy.int32),
        "scatter_index": scatter_index,
    })  # fmt: skip
    lines = _to(device, {"cells": cells, "tokens": real})
    return Batch(
        **on_device,
        segments=tuple(
            Segment(slot, tuple(own.tolist()), begin, end)
            for (slot, _), own, begin, end in zip(slots, lengths, begins[:-1], begins[1:], strict=True)
        ),
        grid=None if cells is None else AttentionGrid(len(every), width, **lines),
        width=width,
        uniform=len(set(numpy.diff(begins))) == 1,
        bucketed=buckets is not None,
        padded_len=padded_len,
    )


def _places(tokens: list[int], *, aligned: bool, buckets: ShapeBuckets | None) -> tuple[list[int], int]:
    """Where each segment begins, followed by the end of the last one; and that end again, the tokens of the batch.

    tokens: of each segment, padding excluded.
    """
    if aligned:
        filled = [-(-own // _ALIGNED) * _ALIGNED for own in tokens]
        longest = max(filled)
        uniform = not buckets and longest * len(tokens) <= _MAX_PADDING * sum(tokens)
        tokens = [longest] * len(tokens) if uniform else filled
    if buckets:
        total = sum(tokens)
        tokens[-1] += buckets.tokens(total) - total
    begins = [0, *numpy.cumsum(tokens).tolist()]
    return begins, begins[-1]


def _scatter_index(sizes: list[int], begins: list[int], buckets: ShapeBuckets) -> tuple[int, Any]:
    """`Batch.padded_len`, and `Batch.scatter_index` [tokens] int64. Padding tokens may have any index within a segment.

    sizes: tokens of each segment, padding excluded. begins: where segments begin, and the end of the last one.
    """
    filled = numpy.diff(begins)
    if filled.min() == filled.max():
        return int(filled[0]), None
    padded_len = buckets.width(max(sizes))
    begins_padded = numpy.repeat(numpy.arange(len(sizes)) * padded_len, filled)
    return padded_len, begins_padded + numpy.minimum(_within(filled), padded_len - 1)


def _line_cells(lengths: list[Any], tokens: Any, total: int) -> tuple[Any, Any, int]:
    """The cells of `tokens` in lines of the longest row's width, those tokens if there is padding, and the width.

    lengths: of each segment, [rows] int64: the tokens of its rows. tokens: [tokens] int64, all but padding. total:
    tokens of the batch. Cells and tokens are [tokens with a cell] int64; None where rows are lines already.
    """
    every = numpy.concatenate(lengths)
    width = int(every.max())
    if _are_lines(every, total):
        return None, None, width
    lines = numpy.repeat(numpy.arange(len(every)) * width, every)
    return lines + _within(every), tokens if len(tokens) < total else None, width


def _within(sizes: Any) -> Any:
    """[sum of sizes] int64: the index of each element within its piece, for consecutive pieces of `sizes` [pieces]."""
    return numpy.arange(sizes.sum()) - numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)


def _are_lines(every: Any, total: int) -> bool:
    """Whether rows of the lengths `every` [rows] are lines of one width already, in a batch of `total` tokens.

    `rows * longest == total` alone does not say so: with padding, rows of 215 and 256 tokens may have 512 tokens in all
    and would be read as two of 256.
    """
    return bool(every.min() == every.max() and every.sum() == total)


def _bucketed_cells(lengths: list[Any], begins: list[int], buckets: ShapeBuckets) -> tuple[Any, int]:
    """The cells of all tokens, [tokens] int64, and the width of the lines; no cells where rows are lines already.

    All padding of a segment gets the last cell of the segment's first line. No row is long enough to reach that
    cell, so no token attends to it and no gradient comes from it: padding changes neither its own slot's rows nor
    another's.
    """
    every = numpy.concatenate(lengths)
    if _are_lines(every, begins[-1]):
        return None, int(every[0])
    width = buckets.width(int(every.max()) + 1)
    cells = numpy.empty(begins[-1], dtype=numpy.int64)
    first = 0
    for own, begin, end in zip(lengths, begins[:-1], begins[1:], strict=True):
        lines = numpy.repeat(numpy.arange(first, first + len(own)) * width, own)
        cells[begin : begin + len(lines)] = lines + _within(own)
        cells[begin + len(lines) : end] = (first + 1) * width - 1
        first += len(own)
    return cells, width


def _to(device: torch.device, arrays: dict[str, Any]) -> dict[str, Any]:
    tensors = {name: None if array is None else torch.from_numpy(array) for name, array in arrays.items()}
    if device.type != "cuda":
        return tensors
    return {
        name: None if tensor is None else tensor.pin_memory().to(device, non_blocking=True)
        for name, tensor in tensors.items()
    }
