"""The validation loss of several slots at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy
import torch

from trainables.packed.batches import Batch, collate
from trainables.packed.rows import Indices, Rows

Losses = Callable[[Batch], torch.Tensor]
"""Negative log-likelihood of every part of a batch, summed over its targets."""

_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens of a forward pass: on a CPU what its cache holds is fastest, a GPU wants to be filled."""


def evaluate(
    slots: Sequence[int], rows: Rows, batch_size: int, pad: int, device: torch.device, losses: Losses
) -> list[float | None]:
    """Each slot's eval_loss as SFTTrainer defines it: batches in file order, the mean of their means, by rows.

    None where there are no rows. Several batches go through the base at a time; their means are taken apart.
    """
    if not len(rows):
        return [None] * len(slots)
    batches = [numpy.arange(begin, min(begin + batch_size, len(rows))) for begin in range(0, len(rows), batch_size)]
    weights = torch.tensor([len(batch) / len(rows) for batch in batches], dtype=torch.float64)
    targets = torch.tensor([max(1, rows.targets(batch)) for batch in batches], dtype=torch.float64)
    sums = []
    for together in _chunks(batches, rows, len(slots), _TOKENS.get(device.type, 4096)):
        batch = collate([(slot, own) for slot in slots for own in together], rows, pad, device)
        sums.append(losses(batch).view(len(slots), -1))
    means = torch.cat(sums, dim=1).double().cpu() / targets
    return [float(value) for value in means @ weights]


def _chunks(batches: list[Indices], rows: Rows, slots: int, limit: int) -> Iterator[list[Indices]]:
    """Consecutive batches that make at most `limit` tokens with all slots, or a single one."""
    together: list[Indices] = []
    tokens = 0
    for batch in batches:
        more = slots * rows.tokens(batch)
        if together and tokens + more > limit:
            yield together
            together, tokens = [], 0
        together.append(batch)
        tokens += more
    yield together
