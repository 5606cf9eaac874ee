"""Which rows each process of a group takes, so that together they take exactly what one process alone would.

accelerate's own way fills the last batches of a pass up with rows from its beginning, which changes both what the last
step learns from and the mean of the validation loss. Here a batch is what it would be for one process, batch after
batch is dealt out in turn, and a process that is left without one takes a single masked token: it has to join the
others' exchange of gradients, and adds nothing to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

_MASKED = -100


class Dealt(Dataset[Any]):
    """Rows, and behind the last one (`row len(self)`) a single token that is no target."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        first = rows[0]
        self._nothing = {**{key: value[:1] for key, value in first.items()}, "labels": [_MASKED]}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._nothing if index == len(self._rows) else self._rows[index]


class Hand:
    """A batch sampler: of the batches of another, those of one process in turn; `nothing` is a batch for who gets none.

    Its length, and so the steps of a pass, are those of every process.
    """

    def __init__(self, batches: Any, rank: int, size: int, nothing: Sequence[int]) -> None:
        self._batches, self._rank, self._size, self._nothing = batches, rank, size, list(nothing)
        self.batch_size = getattr(batches, "batch_size", None)
        self.drop_last = False

    @property
    def batch_sampler(self) -> Hand:
        """Where transformers looks for `set_epoch`: in what a batch sampler is made from."""
        return self

    def set_epoch(self, epoch: int) -> None:
        sampler: Any = getattr(self._batches, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(len(self._batches) / self._size)

    @property
    def missing(self) -> int:
        """How many processes get nothing in the last round."""
        return -len(self._batches) % self._size

    def __iter__(self) -> Iterator[list[int]]:
        for place, batch in enumerate(self._batches):
            if place % self._size == self._rank:
                yield batch
        if self._rank >= self._size - self.missing:
            yield self._nothing


def dealt(loader: Any, batches: Any, rank: int, size: int) -> DataLoader[Any]:
    """A loader like `loader`, of the batches that fall to one process. It is no loader of accelerate's: that would
    count rows again, and cut off what it takes for repeated."""
    rows = Dealt(loader.dataset)
    return DataLoader(
        rows,
        batch_sampler=Hand(batches, rank, size, [len(rows)]),  # type: ignore[arg-type]
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        num_workers=0,
    )
