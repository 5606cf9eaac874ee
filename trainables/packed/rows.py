"""Rows as flat arrays, and the order in which a solo run reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy
import torch

from trainables.data.tokens import IGNORED

Indices = numpy.ndarray[Any, numpy.dtype[numpy.int64]]
"""Indices of rows, [rows] int64."""


@dataclass(frozen=True)
class FlatRows:
    """Tokenized rows as three arrays: row i is `ids[starts[i]:starts[i + 1]]`. Views of the memory-mapped Arrow file.

    `datasets` makes Python lists of a row, in 60 us: for 16 slots that takes longer than a small base's step.
    """

    ids: Any
    """[tokens] int32."""
    labels: Any
    """[tokens] int32: the token's id, or -100 where it is no target."""
    starts: Any
    """[rows + 1] int64: where rows begin, and the end of the last one."""

    @classmethod
    def of(cls, dataset: Any) -> FlatRows:
        """The rows of a `datasets.Dataset` with the columns input_ids and labels.

        Raises ValueError where the two columns have rows of different lengths.
        """
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
        """Number of targets in `rows` [n]. The first token of a row is never one: no token predicts it."""
        return sum(
            int(numpy.count_nonzero(self.labels[self.starts[row] + 1 : self.starts[row + 1]] != IGNORED))
            for row in rows
        )

    def tokens(self, rows: Indices) -> int:
        """Number of tokens in `rows` [n]."""
        return int(self.lengths(rows).sum())

    def lengths(self, rows: Indices) -> Indices:
        """[n] int64: tokens of each of `rows` [n]."""
        return self.starts[rows + 1] - self.starts[rows]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(numpy.diff(self.starts).max(initial=0))


@dataclass(frozen=True)
class AccumulationWindow:
    """The micro-batches of one optimizer step."""

    batches: tuple[Indices, ...]
    """Indices of rows, [rows] int64 for each micro-batch."""
    targets: int
    """Targets of all of them: a solo run divides their summed loss by this."""
    opens_epoch: bool
    """Whether it is the first of an epoch."""


def windows(rows: FlatRows, micro: int, accumulation: int, seed: int) -> Iterator[AccumulationWindow]:
    """Yields the accumulation windows of a solo run, epoch after epoch without end.

    micro: rows of a micro-batch. accumulation: micro-batches of a window. accelerate's SeedableRandomSampler seeds
    epoch e with `data_seed + e`. The last micro-batch of an epoch may have fewer rows and its last window fewer
    micro-batches: neither takes rows of the next epoch.
    """
    generator = torch.Generator()
    for epoch in count():
        generator.manual_seed(seed + epoch)
        order = torch.randperm(len(rows), generator=generator).numpy()
        batches = [order[begin : begin + micro] for begin in range(0, len(order), micro)]
        for begin in range(0, len(batches), accumulation):
            window = tuple(batches[begin : begin + accumulation])
            yield AccumulationWindow(window, sum(rows.targets(batch) for batch in window), opens_epoch=begin == 0)
