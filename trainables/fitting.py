"""How a trial is arranged to fit into a device's memory: by its micro-batch and gradient checkpointing.

The effective batch does not change, and so neither does what a step learns from: with a smaller micro-batch, more of
them are accumulated. Torch-free.
"""

from __future__ import annotations

from trainables.settings import Settings, steps
from tuner.contract import Fit


def fitted(settings: Settings, fit: Fit | None) -> Settings:
    """The settings with a micro-batch and checkpointing that need no more memory than `fit`."""
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
    """The next smaller arrangement: half the micro-batch, then checkpointing; None where there is none.

    processes: that share the effective batch.
    """
    train = settings.train
    micro = steps.split_of(train, processes).micro
    if micro > 1:
        fewer = steps.split(train.effective_batch_size // processes, micro // 2).micro
        return Fit(fewer, train.gradient_checkpointing)
    return None if train.gradient_checkpointing else Fit(1, True)
