"""Packed trials: one resident base, several LoRA trials in one forward and backward, each exactly its solo run.

eligible.py    which settings can be packed, and why others cannot; torch-free
bases.py       which bases trials can be packed on, as far as their code says it
probe.py       the same, asked of the base: do rows feel their neighbours
rows.py        rows as flat arrays, and the order a solo run reads them in
batches.py     micro-batches of several slots as one, and the few shapes that they are brought to
attention.py   attention over rows that lie one behind the other, so that nothing else sees padding
norms.py       RMS norms in one kernel, on a GPU
stack.py       the adapters of all slots in flat buffers, one row a slot: weights, gradients, moments
delta.py       a linear layer of the base with the adapters of several slots on it, in one call
frozen.py      the base's own part of that call: the gradient of a frozen layer's inputs
sites.py       the linear layers of the base, and the part of the stack that each one uses
optimizer.py   AdamW and clipping, every slot with its own rate, decay and step count
adapters.py    a slot's adapter as PEFT makes it under the trial's seed, and as PEFT's files
slot.py        one trial: its rows, its schedule, where it stands, what it is waiting for
replays.py     the base's pass over batches of fixed shapes, recorded as CUDA graphs
passes.py      a batch's way through the base: attention, adapters, head
room.py        a step in as many passes as memory takes
head.py        the loss of a batch, by the head that SFTTrainer uses
evaluating.py  the validation loss of several slots at once
resuming.py    a slot's state on disk, to go on from elsewhere
copies.py      what slots hold, on its way to the host while the engine trains on
writing.py     threads that write adapters and states while the engine trains on
choosing.py    how many trials fit, and how many pay
engine.py      the loop: join, leave, advance, confirm

Importing this package costs no torch; `load` and `trainables.packed.engine` do.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainables.packed.eligible import packs
from tuner.contract import Preparation

if TYPE_CHECKING:
    from trainables.packed.engine import Engine

__all__ = ["load", "packs"]


def load(
    settings: Mapping[str, Any], preparation: Preparation, slots: int, run_ahead: int = 8, *, record: bool = True
) -> Engine:
    """An engine in a worker of its own: the libraries quiet, and out of the garbage collector's sight."""
    from trainables.hf import imports

    with imports.heavy():
        from trainables.packed.engine import Engine
    gc.collect()
    gc.freeze()
    return Engine(settings, preparation, slots, run_ahead, record=record)
