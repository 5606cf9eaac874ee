"""Arithmetic of batches, steps and warm-up, the same on driver and worker."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.settings.train import TrainSettings
from tuner.contract import TrialSize


@dataclass(frozen=True)
class BatchSplit:
    """How an effective batch is divided into micro-batches."""

    micro: int
    """Rows of a micro-batch, which is one forward and backward."""
    accumulation: int
    """Micro-batches of an optimizer step."""


def split(effective: int, cap: int) -> BatchSplit:
    """Splits a batch of `effective` rows exactly: the largest micro-batch of at most `cap` rows that divides it."""
    micro = max(divisor for divisor in range(1, min(effective, cap) + 1) if effective % divisor == 0)
    return BatchSplit(micro, effective // micro)


def split_of(train: TrainSettings, processes: int = 1) -> BatchSplit:
    """How each of `processes` splits its share of the effective batch, which they divide evenly."""
    return split(train.effective_batch_size // processes, train.per_device_train_batch_size)


def steps_per_epoch(rows: int, shape: BatchSplit) -> int:
    """Optimizer steps in one pass over the rows, as transformers counts them: an incomplete batch is a step too.

    shape: of one process that takes all of the effective batch; several processes take as many steps.
    """
    return max(1, math.ceil(math.ceil(rows / shape.micro) / shape.accumulation))


def max_steps(train: TrainSettings, rows: int) -> int:
    """Optimizer steps of a trial. rows: of the training set."""
    if train.max_steps is not None:
        return train.max_steps
    assert train.num_train_epochs is not None
    return max(1, math.ceil(train.num_train_epochs * steps_per_epoch(rows, split_of(train))))


def trial_size(train: TrainSettings, rows: int, tokens: float) -> TrialSize:
    """Steps and tokens of a whole trial, with rows of the mean length. rows, tokens: of the training set."""
    steps = max_steps(train, rows)
    return TrialSize(steps, tokens * steps / steps_per_epoch(rows, split_of(train)))


def warmup_steps(ratio: float, steps: int) -> int:
    """Optimizer steps over which the learning rate rises. The first of them has learning rate 0."""
    return math.ceil(ratio * steps)
