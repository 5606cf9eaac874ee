"""The validation loss of several slots at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
import torch

from trainables.packed.batches import Part
from trainables.packed.rows import Rows

TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens of a forward pass: on a CPU what its cache holds is fastest, a GPU wants to be filled."""


def evaluate(
    slots: Sequence[int], rows: Rows, batch_size: int, sums: Callable[[Sequence[Part]], torch.Tensor]
) -> list[float | None]:
    """Each slot's eval_loss as SFTTrainer defines it: batches in file order, the mean of their means, by rows.

    sums: the negative log-likelihood of every part, summed over its targets. None where there are no rows.
    """
    if not len(rows):
        return [None] * len(slots)
    batches = [numpy.arange(begin, min(begin + batch_size, len(rows))) for begin in range(0, len(rows), batch_size)]
    weights = torch.tensor([len(batch) / len(rows) for batch in batches], dtype=torch.float64)
    targets = torch.tensor([max(1, rows.targets(batch)) for batch in batches], dtype=torch.float64)
    found = sums([(slot, batch) for batch in batches for slot in slots])
    means = found.double().cpu().view(len(batches), len(slots)).t() / targets
    return [float(value) for value in means @ weights]
