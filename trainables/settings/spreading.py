"""Says whether several processes can train with the settings. Torch-free: the driver asks before it plans."""

from __future__ import annotations

from trainables.settings.root import Settings
from tuner.contract import Group

_ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "rmsprop", "sgd")
"""Optimizers that update each element by itself, and so can update a shard of a parameter."""


def spreads(settings: Settings, group: Group) -> str | None:
    """Why the group cannot train with these settings; None where it can."""
    train = settings.train
    if train.effective_batch_size % group.size:
        lower = train.effective_batch_size // group.size * group.size
        around = f"{lower} or {lower + group.size}" if lower else f"{group.size}"
        return (
            f"effective_batch_size {train.effective_batch_size} is not the same number of rows for each of "
            f"{group.size} processes: take {around}, or another number of processes"
        )
    if group.shares_base and train.optim not in _ELEMENTWISE:
        return f"optim {train.optim} does not work on shares of a tensor: take {', '.join(_ELEMENTWISE)}"
    if group.shares_base and train.use_dora:
        return "use_dora needs the norms of whole weights, which no process has with fsdp: take ddp"
    if group.shares_base and train.init_adapter:
        return "init_adapter is not loaded into shards of an adapter: take ddp"
    if group.shares_base and settings.metrics.names:
        return "metrics need answers, and no process has the whole base to generate with under fsdp: take ddp"
    return None
