"""Deals batches to the processes of a group, so that together they take exactly those of one process.

accelerate's own loader pads the last batches of an epoch with rows from its beginning. That changes what the last step
learns from, and the mean of the validation loss. Here the batches are those of one process, and the processes take them
in turn. A process that gets none in the last round takes a single masked token: it has to join the others' collectives,
and adds nothing to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

_MASKED = -100


class RowsAndPadding(Dataset[Any]):
    """The rows, and behind them (`self[len(self)]`) a row of a single token that is no target."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        first = rows[0]
        self._padding = {**{key: value[:1] for key, value in first.items()}, "labels": [_MASKED]}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._padding if index == len(self._rows) else self._rows[index]


class ProcessBatchSampler:
    """A batch sampler that takes every `size`-th batch of another one, beginning with batch `rank`.

    Its length, and so the number of steps in an epoch, is the same in every process.
    """

    def __init__(self, batches: Any, rank: int, size: int, padding: Sequence[int]) -> None:
        """batches: the other batch sampler. padding: the batch of a process that gets none in the last round."""
        self._batches, self._rank, self._size, self._padding = batches, rank, size, list(padding)
        self.batch_size = getattr(batches, "batch_size", None)
        self.drop_last = False

    @property
    def batch_sampler(self) -> ProcessBatchSampler:
        """Itself: transformers calls `set_epoch` on the batch sampler of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Seeds the order of rows in an epoch."""
        sampler: Any = getattr(self._batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self._batches) / self._size)

    @property
    def idle(self) -> int:
        """Processes that get no batch in the last round."""
        return -len(self._batches) % self._size

    def __iter__(self) -> Iterator[list[int]]:
        for place, batch in enumerate(self._batches):
            if place % self._size == self._rank:
                yield batch
        if self._rank >= self._size - self.idle:
            yield self._padding


def process_loader(loader: Any, batches: Any, rank: int, size: int) -> DataLoader[Any]:
    """A loader like `loader` with the batches of process `rank` of `size`.

    It is not accelerate's, which would drop rows that it takes for padding.
    """
    rows = RowsAndPadding(loader.dataset)
    return DataLoader(
        rows,
        batch_sampler=ProcessBatchSampler(batches, rank, size, [len(rows)]),  # type: ignore[arg-type]
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        num_workers=0,
    )
