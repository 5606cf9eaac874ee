"""Makes a trial fit into a device's memory: by a smaller micro-batch, then by gradient checkpointing.

The effective batch does not change, and so neither do the rows that a step learns from: more micro-batches are
accumulated. Torch-free.
"""

from __future__ import annotations

from trainables.settings import Settings, steps
from tuner.contract import Fit


def fitted(settings: Settings, fit: Fit | None) -> Settings:
    """The settings with a micro-batch and checkpointing that need no more memory than `fit`; None: as they are."""
    if fit is None:
        return settings
    train = settings.train
    both = Fit(train.per_device_train_batch_size, train.gradient_checkpointing).within(fit)
    changes = {
        "per_device_train_batch_size": both.micro_batch,
        "gradient_checkpointing": both.gradient_checkpointing,
    }
    return settings.model_copy(update={"train": train.model_copy(update=changes)})


def smaller(settings: Settings, processes: int = 1) -> Fit | None:
    """The next arrangement that needs less memory: half the micro-batch, then checkpointing; None where there is none.

    processes: how many share the effective batch.
    """
    train = settings.train
    micro = steps.split_of(train, processes).micro
    if micro > 1:
        fewer = steps.split(train.effective_batch_size // processes, micro // 2).micro
        return Fit(fewer, train.gradient_checkpointing)
    return None if train.gradient_checkpointing else Fit(1, True)
