"""Copies slots to the host while the engine trains on.

A copy into ordinary memory stops the engine twice: it waits for all work that the GPU has been given, and then for the
system to find fresh pages, some 100 MB a slot. That was 10 s of the 36 s in which 16 trials took 60 steps on a 1.5B
base (H200). A copy into a pinned buffer is one more piece of work in the GPU's stream.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Sequence

import torch

_PINNED_BYTES = 4 << 30
"""Most bytes of an engine's pinned buffers, which no other process can use. Further copies go into ordinary memory."""


class Copy:
    """Rows of a stack's buffers on the host, as they were when the copy was made."""

    def __init__(self, rows: Sequence[torch.Tensor], pinned: torch.Tensor | None) -> None:
        """Begins the copy. rows: [width] each, of one dtype. pinned: [bytes] uint8, the buffer to copy into; None:
        ordinary memory."""
        shape = len(rows), len(rows[0])
        if pinned is None:
            self.values = torch.empty(shape, dtype=rows[0].dtype)
        else:
            self.values = pinned[: _bytes(rows)].view(rows[0].dtype).view(shape)
        """[rows, width] in the rows' dtype, on the host; complete after `wait`."""
        for place, row in zip(self.values, rows, strict=True):
            place.copy_(row, non_blocking=pinned is not None)
        self._arrived = None if pinned is None else torch.cuda.Event(blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> None:
        """Returns when `values` are complete. Called in the thread that reads them: the engine's must not wait."""
        if self._arrived is not None:
            self._arrived.synchronize()


class Copies:
    """Makes copies, in pinned buffers where there is a GPU.

    A buffer is reused once its copy is garbage. That is safe without waiting, because the GPU writes the next copy
    after everything that its stream was given before.
    """

    def __init__(self, device: torch.device, most_pinned: int = _PINNED_BYTES) -> None:
        """most_pinned: bytes of pinned buffers in all."""
        self._pinnable_bytes = most_pinned if device.type == "cuda" else 0
        """Bytes of buffers that may still be allocated."""
        self._free: list[torch.Tensor] = []
        """Buffers whose copies are garbage, [bytes] uint8 each."""
        self._lock = threading.RLock()  # a copy becomes garbage in the thread that wrote it

    def of(self, rows: Sequence[torch.Tensor]) -> Copy:
        """Copies rows, [width] each and of one dtype. Later changes to them are not in the copy."""
        pinned = self._buffer(_bytes(rows))
        copy = Copy(rows, pinned)
        if pinned is not None:
            weakref.finalize(copy, self._reuse, pinned)
        return copy

    def _buffer(self, size: int) -> torch.Tensor | None:
        """A pinned buffer [bytes] uint8 of at least `size` bytes; None where no more memory can be pinned."""
        with self._lock:
            fits = [place for place, block in enumerate(self._free) if len(block) >= size]
            if fits:
                return self._free.pop(min(fits, key=lambda place: len(self._free[place])))
            size = 1 << (size - 1).bit_length()  # torch pins powers of two, whatever size is asked for
            if size > self._pinnable_bytes:
                return None
            try:
                block = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:  # the system allows no more; ordinary memory is slower, and works too
                logging.getLogger(__name__).warning("no pinned memory: %s", str(error).splitlines()[0])
                self._pinnable_bytes = 0
                return None
            self._pinnable_bytes -= size
            return block

    def _reuse(self, block: torch.Tensor) -> None:
        """Takes a buffer back, [bytes] uint8, whose copy is garbage."""
        with self._lock:
            self._free.append(block)


def _bytes(rows: Sequence[torch.Tensor]) -> int:
    """Bytes of all rows. rows: [width] each, in any dtype."""
    return sum(row.nbytes for row in rows)
