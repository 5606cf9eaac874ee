"""Rows as flat arrays, the order a solo run reads them in, and micro-batches of several slots as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from typing import Any

import numpy
import torch

from trainables.data.tokenizing import IGNORED

Indices = numpy.ndarray[Any, numpy.dtype[numpy.int64]]


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
        return int((self.starts[rows + 1] - self.starts[rows]).sum())


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


@dataclass(frozen=True)
class Segment:
    """A slot's part of a batch: `rows` consecutive rows, the longest of `length` tokens.

    begin, end: its place among the tokens of the whole batch, padding included.
    """

    slot: int
    rows: int
    length: int
    begin: int
    end: int


@dataclass(frozen=True)
class Batch:
    """Rows of several slots, one slot after another, padded on the right to the longest row of all.

    Causal attention, an attention mask and positions counted from the left make a row's logits independent of how far
    it is padded.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    segments: tuple[Segment, ...]
    positions: torch.Tensor
    """Of the flattened tokens those whose successor is a target, segment by segment."""
    targets: torch.Tensor
    """What follows at `positions`."""
    counts: list[int]
    """How many of them each segment has."""


def collate(parts: Sequence[tuple[int, Indices]], rows: Rows, pad: int, device: torch.device) -> Batch:
    """The rows of each (slot, indices) as one batch, with TRL's padding: `pad`, mask 0, label -100."""
    starts = rows.starts
    lengths = [(starts[indices + 1] - starts[indices]).astype(int) for _, indices in parts]
    longest = [int(own.max()) for own in lengths]
    width = max(longest)
    height = sum(len(indices) for _, indices in parts)
    ids = numpy.full((height, width), pad, dtype=numpy.int64)
    labels = numpy.full((height, width), IGNORED, dtype=numpy.int64)
    mask = numpy.zeros((height, width), dtype=numpy.int64)
    line = 0
    for (_, indices), own in zip(parts, lengths, strict=True):
        for index, length in zip(indices, own, strict=True):
            begin = starts[index]
            ids[line, :length] = rows.ids[begin : begin + length]
            labels[line, :length] = rows.labels[begin : begin + length]
            mask[line, :length] = 1
            line += 1
    ends = pairwise([0, *accumulate(len(indices) * width for _, indices in parts)])
    segments = tuple(
        Segment(slot, len(indices), length, begin, end)
        for (slot, indices), length, (begin, end) in zip(parts, longest, ends, strict=True)
    )
    positions = numpy.flatnonzero(numpy.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED) != IGNORED)
    borders = numpy.searchsorted(positions, [segment.end for segment in segments]).tolist()
    tensors = [torch.from_numpy(array) for array in (ids, mask, positions, labels.reshape(-1)[positions + 1])]
    if device.type == "cuda":
        tensors = [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
    counts = [end - begin for begin, end in pairwise([0, *borders])]
    return Batch(tensors[0], tensors[1], segments, tensors[2], tensors[3], counts)
