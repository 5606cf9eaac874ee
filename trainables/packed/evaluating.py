"""The validation loss of several slots at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
import torch

from trainables.packed.rows import Batch, Rows, collate

Losses = Callable[[Batch], torch.Tensor]
"""Negative log-likelihood of every segment of a batch, summed over its targets."""


def evaluate(
    slots: Sequence[int], rows: Rows, batch_size: int, pad: int, device: torch.device, losses: Losses
) -> list[float | None]:
    """Each slot's eval_loss as SFTTrainer defines it: batches in file order, the mean of their means, by rows.

    None where there are no rows. The slots see the same batches, so theirs are repeated and nothing is padded for a
    neighbour's sake.
    """
    if not len(rows):
        return [None] * len(slots)
    means = []
    sizes = []
    for begin in range(0, len(rows), batch_size):
        indices = numpy.arange(begin, min(begin + batch_size, len(rows)))
        batch = collate([(slot, indices) for slot in slots], rows, pad, device)
        means.append(losses(batch) / max(1, rows.targets(indices)))
        sizes.append(len(indices))
    weights = torch.tensor(sizes, dtype=torch.float64) / len(rows)
    return [float(value) for value in weights @ torch.stack(means).double().cpu()]
