"""Rows as flat arrays, the order a solo run reads them in, and micro-batches of several slots as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

import numpy
import torch

from trainables.data.tokenizing import IGNORED

Indices = numpy.ndarray[Any, numpy.dtype[numpy.int64]]

_MOST_FILLER = 1.25
"""Tokens computed over tokens of rows, up to which all segments are made as long as the longest one."""
_ALIGNED = 8
"""On a GPU a segment's tokens are a multiple of this: grouped products read 16 bytes at a time, 8 numbers in bf16."""


@dataclass(frozen=True)
class Rows:
    """Tokenized rows: row i is `ids[starts[i]:starts[i + 1]]`. Views of the memory-mapped Arrow file.

    A `datasets` row comes as Python lists, 60 us each: with 16 slots that is longer than a small base's step.
    """

    ids: Any
    labels: Any
    starts: Any

    @classmethod
    def of(cls, dataset: Any) -> Rows:
        """The rows of a `datasets.Dataset` with the columns input_ids and labels."""
        table = dataset.with_format(None).data
        columns = [table.column(name).combine_chunks() for name in ("input_ids", "labels")]
        ids, labels = (column.chunk(0) if hasattr(column, "chunk") else column for column in columns)
        starts = ids.offsets.to_numpy()
        if not numpy.array_equal(starts - starts[0], labels.offsets.to_numpy() - labels.offsets[0].as_py()):
            raise ValueError("input_ids and labels have rows of different lengths")
        return cls(
            ids.values.to_numpy()[starts[0] : starts[-1]],
            labels.values.to_numpy()[labels.offsets[0].as_py() : labels.offsets[-1].as_py()],
            starts - starts[0],
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def targets(self, rows: Indices) -> int:
        """Labels that are a prediction's target: the first token of a row is nobody's."""
        return sum(
            int(numpy.count_nonzero(self.labels[self.starts[row] + 1 : self.starts[row + 1]] != IGNORED))
            for row in rows
        )

    def tokens(self, rows: Indices) -> int:
        """Tokens, padding excluded."""
        return int(self.lengths(rows).sum())

    def lengths(self, rows: Indices) -> Indices:
        """Tokens of each row."""
        return self.starts[rows + 1] - self.starts[rows]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(numpy.diff(self.starts).max(initial=0))


@dataclass(frozen=True)
class Window:
    """One optimizer step's micro-batches."""

    batches: tuple[Indices, ...]
    targets: int
    opens_epoch: bool


def windows(rows: Rows, micro: int, accumulation: int, seed: int) -> Iterator[Window]:
    """The accumulation windows of a solo run, without end.

    accelerate's SeedableRandomSampler seeds epoch e with `data_seed + e`; the last batch of an epoch may be short and
    the last window may hold fewer batches, and neither reaches into the next epoch.
    """
    generator = torch.Generator()
    for epoch in count():
        generator.manual_seed(seed + epoch)
        order = torch.randperm(len(rows), generator=generator).numpy()
        batches = [order[begin : begin + micro] for begin in range(0, len(order), micro)]
        for begin in range(0, len(batches), accumulation):
            window = tuple(batches[begin : begin + accumulation])
            yield Window(window, sum(rows.targets(batch) for batch in window), opens_epoch=begin == 0)


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

    tokens: None where every token of the batch has a place, filler having none.
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
    """Tokens of the longest row."""
    positions: torch.Tensor
    """The tokens whose successor is a target, part by part."""
    targets: torch.Tensor
    """What follows at `positions`."""
    counts: torch.Tensor
    """How many of them each part has."""
    ends: torch.Tensor
    """Where each segment ends."""


def collate(parts: Sequence[Part], rows: Rows, filler: int, device: torch.device) -> Batch:
    """The rows of all parts as one batch. Parts of one slot stand together and make one segment.

    On a GPU segments are filled up with the token `filler`: to one length where that costs little, because one batched
    product then serves them all, or else to a multiple of eight.
    """
    slots = [(slot, [indices for _, indices in own]) for slot, own in groupby(parts, key=lambda part: part[0])]
    lengths = [rows.lengths(numpy.concatenate(own)).astype(int) for _, own in slots]
    begins, total = _places([int(own.sum()) for own in lengths], device.type == "cuda")
    ids = numpy.full(total, filler, dtype=numpy.int64)
    labels = numpy.full(total, IGNORED, dtype=numpy.int64)
    position_ids = numpy.zeros(total, dtype=numpy.int64)
    counts, token_places = [], []
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
        token_places.append(numpy.arange(begin, place))
    positions = numpy.flatnonzero(labels[1:] != IGNORED)
    arrays = [ids[None], position_ids[None], positions, labels[positions + 1], numpy.array(counts, dtype=numpy.int64)]
    grid, width = _grid(lengths, numpy.concatenate(token_places), total)
    tensors = _to(device, [*arrays, numpy.array(begins[1:], dtype=numpy.int32), *(grid or ())])
    segments = tuple(
        Segment(slot, tuple(own.tolist()), begin, end)
        for (slot, _), own, begin, end in zip(slots, lengths, begins[:-1], begins[1:], strict=True)
    )
    height = sum(len(own) for own in lengths)
    return Batch(
        tensors[0], tensors[1], segments,
        Grid(height, width, tensors[6], tensors[7] if len(tensors) > 7 else None) if grid else None,
        width, tensors[2], tensors[3], tensors[4], tensors[5],
    )  # fmt: skip


def _places(tokens: list[int], gpu: bool) -> tuple[list[int], int]:
    """Where segments of so many tokens begin, and the end of the last."""
    if gpu:
        longest = -(-max(tokens) // _ALIGNED) * _ALIGNED
        even = longest * len(tokens) <= _MOST_FILLER * sum(tokens)
        tokens = [longest if even else -(-own // _ALIGNED) * _ALIGNED for own in tokens]
    begins = [0, *numpy.cumsum(tokens).tolist()]
    return begins, begins[-1]


def _grid(lengths: list[Any], tokens: Any, total: int) -> tuple[tuple[Any, ...] | None, int]:
    """The places of all tokens in lines of the longest row's width, and that width."""
    every = numpy.concatenate(lengths)
    width = int(every.max())
    if len(every) * width == total:
        return None, width
    lines = numpy.repeat(numpy.arange(len(every)) * width, every)
    within = numpy.arange(len(tokens)) - numpy.repeat(numpy.cumsum(every) - every, every)
    return (lines + within, tokens) if len(tokens) < total else (lines + within,), width


def _to(device: torch.device, arrays: Sequence[Any]) -> list[torch.Tensor]:
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type != "cuda":
        return tensors
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
