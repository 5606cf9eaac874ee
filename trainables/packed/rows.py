"""Rows as flat arrays, and the order in which a solo run reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
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
