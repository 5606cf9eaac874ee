"""Micro-batches of several slots as one, and the shapes that they are brought to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy
import torch

from trainables.data.tokenizing import IGNORED
from trainables.packed.rows import Indices, Rows

_MOST_FILLER = 1.25
"""Tokens computed over tokens of rows, up to which all segments are made as long as the longest one."""
_ALIGNED = 8
"""On a GPU a segment's tokens are a multiple of this: grouped products read 16 bytes at a time, 8 numbers in bf16."""
_FEW_TOKENS = 4096
"""Below it launches bind a GPU over all but the largest bases, and filler costs less than one more shape."""
_SHORT = 1024
"""Lines of attention of which twice the width costs little: it is 5% of a 1.5B base's time."""


Part = tuple[int, Indices]
"""A slot, and rows for it whose losses are summed up together."""


@dataclass(frozen=True)
class Segment:
    """A slot's part of a batch: the tokens from `begin` to `end`. lengths: of its rows, filler left out."""

    slot: int
    lengths: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Grid:
    """Where attention finds its rows: `rows` lines of `width`, token `tokens[i]` of the batch at `places[i]` of them.

    tokens: None where every token of the batch has a place; where shapes are not fixed filler has none.
    """

    rows: int
    width: int
    places: torch.Tensor
    tokens: torch.Tensor | None


@dataclass(frozen=True)
class Batch:
    """Rows of several slots, one behind the other and without padding: linear layers never see a padded token.

    input_ids, position_ids: [1, tokens]. grid: None where all rows have one length, and lie as attention wants them.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segments: tuple[Segment, ...]
    grid: Grid | None
    width: int
    """Of attention's lines: tokens of the longest row, or more where shapes are fixed."""
    positions: torch.Tensor
    """The tokens whose successor is a target, part by part."""
    targets: torch.Tensor
    """What follows at `positions`."""
    counts: torch.Tensor
    """How many of them each part has."""
    ends: torch.Tensor
    """Where each segment ends."""
    even: bool
    """Whether all segments have one length."""
    fixed: bool
    """Whether its shapes are some of a few. Then there are:"""
    span: int
    """Tokens that no segment has more of, filler not counted."""
    spots: torch.Tensor | None
    """Where each token lies once every segment has `span` tokens; None where they have."""

    @property
    def read(self) -> list[torch.Tensor]:
        """What the base's layers read, adapters and all."""
        found = [self.input_ids, self.position_ids, self.ends, self.spots]
        if self.grid is not None:
            found += [self.grid.places, self.grid.tokens]
        return [tensor for tensor in found if tensor is not None]

    def copy(self) -> Batch:
        """The same with a `read` of its own."""
        grid, spots = self.grid, self.spots
        if grid is not None:
            grid = replace(
                grid, places=grid.places.clone(), tokens=None if grid.tokens is None else grid.tokens.clone()
            )
        return replace(
            self, input_ids=self.input_ids.clone(), position_ids=self.position_ids.clone(), ends=self.ends.clone(),
            spots=None if spots is None else spots.clone(), grid=grid,
        )  # fmt: skip


class Shapes:
    """The few shapes that batches of different rows are brought to: those that earlier ones had, where they fit."""

    def __init__(self) -> None:
        self._tokens: set[int] = set()
        self._widths: set[int] = set()

    def tokens(self, needed: int) -> int:
        """Tokens of a batch that needs so many."""
        between, most = (8, 1.125) if needed >= _FEW_TOKENS else (4, 1.25)
        return _known(self._tokens, needed, most, between)

    def width(self, needed: int) -> int:
        """Cells of a line for rows of so many tokens."""
        return _known(self._widths, needed, 2.0 if needed <= _SHORT else 1.25, 2)


def _known(sizes: set[int], needed: int, most: float, between: int) -> int:
    """The largest of `sizes` that is at most so many times as much, or a new one: that many lie evenly between a power
    of two and the next."""
    step = max(_ALIGNED, 2 ** (needed.bit_length() - 1) // between)
    found = max((size for size in sizes if needed <= size <= most * needed), default=-(-needed // step) * step)
    sizes.add(found)
    return found


def collate(parts: Sequence[Part], rows: Rows, filler: int, device: torch.device, fixed: Shapes | None = None) -> Batch:
    """The rows of all parts as one batch. Parts of one slot stand together and make one segment.

    On a GPU segments are filled up with the token `filler`: to one length where that costs little, because one batched
    product then serves them all, or else to a multiple of eight. fixed: to one of these shapes; segments stay as long
    as they are, up to a multiple of eight, and the last one takes the filler.
    """
    slots = [(slot, [indices for _, indices in own]) for slot, own in groupby(parts, key=lambda part: part[0])]
    lengths = [rows.lengths(numpy.concatenate(own)).astype(int) for _, own in slots]
    every = numpy.concatenate(lengths)
    alike = len(every) > 1 and every.min() == every.max()  # their shapes recur by themselves
    aligned = fixed is not None or device.type == "cuda"
    sizes = [int(own.sum()) for own in lengths]
    begins, total = _places(sizes, aligned=aligned, fixed=None if alike else fixed)
    ids = numpy.full(total, filler, dtype=numpy.int64)
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
    span, spots = _spots(sizes, begins, fixed) if fixed else (0, None)
    if fixed:
        (places, width), real = _fixed_places(lengths, begins, fixed), None
    else:
        places, real, width = _line_places(lengths, numpy.concatenate(kept), total)
    on_device = _to(device, {
        "input_ids": ids[None],
        "position_ids": position_ids[None],
        "positions": positions,
        "targets": labels[positions + 1],
        "counts": numpy.array(counts, dtype=numpy.int64),
        "ends": numpy.array(begins[1:], dtype=numpy.int32),
        "spots": spots,
    })  # fmt: skip
    lines = _to(device, {"places": places, "tokens": real})
    return Batch(
        **on_device,
        segments=tuple(
            Segment(slot, tuple(own.tolist()), begin, end)
            for (slot, _), own, begin, end in zip(slots, lengths, begins[:-1], begins[1:], strict=True)
        ),
        grid=None if places is None else Grid(len(every), width, **lines),
        width=width,
        even=len(set(numpy.diff(begins))) == 1,
        fixed=fixed is not None,
        span=span,
    )


def _places(tokens: list[int], *, aligned: bool, fixed: Shapes | None) -> tuple[list[int], int]:
    """Where segments of so many tokens begin, and the end of the last."""
    if aligned:
        filled = [-(-own // _ALIGNED) * _ALIGNED for own in tokens]
        longest = max(filled)
        even = not fixed and longest * len(tokens) <= _MOST_FILLER * sum(tokens)
        tokens = [longest] * len(tokens) if even else filled
    if fixed:
        total = sum(tokens)
        tokens[-1] += fixed.tokens(total) - total
    begins = [0, *numpy.cumsum(tokens).tolist()]
    return begins, begins[-1]


def _spots(sizes: list[int], begins: list[int], fixed: Shapes) -> tuple[int, Any]:
    """How long segments are if they are of one length, and where in it their tokens lie; filler may lie anywhere."""
    filled = numpy.diff(begins)
    if filled.min() == filled.max():
        return int(filled[0]), None
    span = fixed.width(max(sizes))
    return span, numpy.repeat(numpy.arange(len(sizes)) * span, filled) + numpy.minimum(_within(filled), span - 1)


def _line_places(lengths: list[Any], tokens: Any, total: int) -> tuple[Any, Any, int]:
    """Where `tokens`, all but filler, lie in lines of the longest row's width; those tokens, if there is filler; that
    width. No places where they lie so already."""
    every = numpy.concatenate(lengths)
    width = int(every.max())
    if _lies_so(every, total):
        return None, None, width
    lines = numpy.repeat(numpy.arange(len(every)) * width, every)
    return lines + _within(every), tokens if len(tokens) < total else None, width


def _within(sizes: Any) -> Any:
    """For pieces of these sizes, one behind the other: where in its piece each element lies."""
    return numpy.arange(sizes.sum()) - numpy.repeat(numpy.cumsum(sizes) - sizes, sizes)


def _lies_so(every: Any, total: int) -> bool:
    """Whether rows of these lengths are lines of one width already. Their number times the longest is not enough: with
    filler so many tokens may be there of shorter rows, and rows of 215 and 256 tokens would be read as two of 256."""
    return bool(every.min() == every.max() and every.sum() == total)


def _fixed_places(lengths: list[Any], begins: list[int], fixed: Shapes) -> tuple[Any, int]:
    """The same for all tokens, filler's in the last cell of its slot's first line: no row is so long as to reach it.

    No token of a row sees that cell, and nothing comes back from it; so whatever filler is, its slot's rows do not feel
    it, and its neighbours' neither.
    """
    every = numpy.concatenate(lengths)
    if _lies_so(every, begins[-1]):
        return None, int(every[0])
    width = fixed.width(int(every.max()) + 1)
    places = numpy.empty(begins[-1], dtype=numpy.int64)
    first = 0
    for own, begin, end in zip(lengths, begins[:-1], begins[1:], strict=True):
        lines = numpy.repeat(numpy.arange(first, first + len(own)) * width, own)
        places[begin : begin + len(lines)] = lines + _within(own)
        places[begin + len(lines) : end] = (first + 1) * width - 1
        first += len(own)
    return places, width


def _to(device: torch.device, arrays: dict[str, Any]) -> dict[str, Any]:
    tensors = {name: None if array is None else torch.from_numpy(array) for name, array in arrays.items()}
    if device.type != "cuda":
        return tensors
    return {
        name: None if tensor is None else tensor.pin_memory().to(device, non_blocking=True)
        for name, tensor in tensors.items()
    }
