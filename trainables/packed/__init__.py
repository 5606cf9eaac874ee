"""Packed trials: one resident base, several LoRA trials in one forward and backward, each exactly its solo run.

packing_rules.py  which settings can be packed, and why others cannot; torch-free
bases.py          which bases trials can be packed on, as far as config and signatures tell
probe.py          the same, measured on the base: whether a row depends on its neighbours
rows.py           rows as flat arrays, and the order in which a solo run reads them
batches.py        micro-batches of several slots as one batch, and the few shapes that they are padded to
attention.py      attention over the rows of a batch, which is the only place that pads them to one length
norms.py          on a GPU, each RMS norm as one kernel
stack.py          the adapters of all slots in flat buffers, one row a slot: weights, gradients, moments
layer_context.py  what an adapted layer reads during a pass: the batch's segments, its adapters, dropout masks
multi_lora.py     a linear layer of the base plus the adapters of several slots, as one autograd function
frozen_linear.py  a frozen linear layer of the base: its shape, and the gradient of its inputs
adapted_layers.py the base's linear layers, with the adapters added to their `forward`
optimizer.py      AdamW and clipping, every slot with its own rate, decay and step count
peft_adapters.py  a trial's adapter as PEFT initialises it under the trial's seed, and as PEFT's files
packed_trial.py   one trial: its rows, its schedule, its step, and what it waits for
trial_state.py    a packed trial's state on disk, from which another engine can continue
trial_files.py    the files of an evaluation: adapter and state
cuda_graphs.py    the base's pass over batches of a few shapes, captured as CUDA graphs
packed_model.py   the base, changed so that it takes a batch of several slots
head.py           the loss of a batch, by the head that SFTTrainer uses
chunking.py       a step divided into passes that fit into memory
evaluating.py     measures the validation losses of several slots together
answering.py      answers of several slots at once, with the base's own attention and KV cache
copies.py         copies of slots on the host, made while the engine trains on
writing.py        threads that write adapters and states while the engine trains on
choosing.py       how many trials fit into memory, and how many make the engine faster
engine.py         the loop: join, leave, advance, confirm

Importing this package costs no torch; `load` and `trainables.packed.engine` do.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainables.packed.packing_rules import packs
from tuner.contract import Preparation

if TYPE_CHECKING:
    from trainables.packed.engine import Engine

__all__ = ["load", "packs"]


def load(
    settings: Mapping[str, Any], preparation: Preparation, slots: int, run_ahead: int = 8, *, capture: bool = True
) -> Engine:
    """Makes an engine in a process that trains nothing else. See `Engine` for the arguments and what it raises.

    Takes the objects of the imported libraries out of garbage collection, so that no collection searches them.
    """
    from trainables import imports

    with imports.heavy():
        from trainables.packed.engine import Engine
    gc.collect()
    gc.freeze()
    return Engine(settings, preparation, slots, run_ahead, capture=capture)
