"""How a trial is arranged to fit into a device's memory: micro-batch and gradient checkpointing, and what is smaller.

The effective batch stays, so what a step learns from stays: accumulation makes up for a smaller micro-batch.
Torch-free.
"""

from __future__ import annotations

from trainables.settings import Settings, steps
from tuner.contract import Fit


def fitted(settings: Settings, fit: Fit | None) -> Settings:
    """The settings within `fit`."""
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
    """The next smaller arrangement: half the micro-batch, then checkpointing; None where there is none. processes: that
    share the effective batch."""
    train = settings.train
    micro = steps.share(train, processes).micro
    if micro > 1:
        fewer = steps.batch(train.effective_batch_size // processes, micro // 2).micro
        return Fit(fewer, train.gradient_checkpointing)
    return None if train.gradient_checkpointing else Fit(1, True)
