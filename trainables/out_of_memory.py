"""Which errors are out of memory, and the Fault that they are raised as. Importing this module costs no torch."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.contract import Fault, Reason


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory for a tensor."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@contextmanager
def out_of_memory_faults() -> Iterator[None]:
    """Within it, out of memory is raised as a Fault. The frames that hold tensors are cleared first."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is the latter
        if not is_out_of_memory(error):
            raise
        host = "DefaultCPUAllocator" in str(error)
        message = "the host has too little memory" if host else str(error).split(". ")[0] or "out of memory"
        traceback.clear_frames(error.__traceback__)
    else:
        return
    raise Fault(
        Reason.OUT_OF_MEMORY,
        message,
        "lower train.per_device_train_batch_size or data.max_length, or set train.gradient_checkpointing",
    )
