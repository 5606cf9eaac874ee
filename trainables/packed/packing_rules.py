"""Says which settings can be packed. Torch-free: the driver asks before it plans."""

from __future__ import annotations

from trainables.settings import Settings
from trainables.settings.train import CHANGES_BASE

_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")


def packs(settings: Settings) -> str | None:
    """Why a trial with these settings cannot be packed with others; None where it can."""
    train = settings.train
    if train.use_dora:
        return "use_dora needs the norms of the adapted weights, one set for each trial"
    if train.optim not in _OPTIMIZERS:
        return f"optim {train.optim} has no packed form: only {' and '.join(_OPTIMIZERS)} have"
    if train.init_lora_weights in CHANGES_BASE:
        return f"init_lora_weights {train.init_lora_weights} changes the base, which the neighbours share"
    if train.init_adapter:
        return "init_adapter: an engine makes all adapters of its slots itself"
    if train.gradient_checkpointing:
        return "gradient_checkpointing would draw each dropout mask twice"
    return None
