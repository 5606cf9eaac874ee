"""Copies of slots on the host, made while the engine trains on.

A copy into ordinary memory stops the engine twice: it waits for all work that the GPU has been given, and then for the
system to find fresh pages, some 100 MB a slot. That was 10 of the 36 s in which 16 trials of 60 steps trained on a 1.5B
base (H200). A copy into a pinned buffer is one more piece of work in the GPU's stream.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Sequence

import torch

_PINNED_BYTES = 4 << 30
"""Of an engine's pinned buffers; no other process can use them. Copies beyond that go into ordinary memory."""


class Copy:
    """Rows of a stack's buffers on the host, as they were when the copy was made."""

    def __init__(self, rows: Sequence[torch.Tensor], pinned: torch.Tensor | None) -> None:
        """rows: [width] each, of one dtype. pinned: [bytes] uint8, the buffer to copy into; None: ordinary memory."""
        shape = len(rows), len(rows[0])
        if pinned is None:
            self.values = torch.empty(shape, dtype=rows[0].dtype)
        else:
            self.values = pinned[: _bytes(rows)].view(rows[0].dtype).view(shape)
        """[rows, width] in the rows' dtype; complete after `wait`."""
        for place, row in zip(self.values, rows, strict=True):
            place.copy_(row, non_blocking=pinned is not None)
        self._arrived = None if pinned is None else torch.cuda.Event(blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> None:
        """Returns when `values` are complete. For the thread that reads them: the engine's must not wait."""
        if self._arrived is not None:
            self._arrived.synchronize()


class Copies:
    """Makes copies, in pinned buffers where there is a GPU.

    A buffer is reused once its copy is garbage. That is safe without waiting, because the GPU writes the next copy
    after everything that its stream was given before.
    """

    def __init__(self, device: torch.device, most_pinned: int = _PINNED_BYTES) -> None:
        """most_pinned: bytes of pinned buffers in all."""
        self._more = most_pinned if device.type == "cuda" else 0
        self._free: list[torch.Tensor] = []
        self._lock = threading.RLock()  # a copy becomes garbage in the thread that wrote it

    def of(self, rows: Sequence[torch.Tensor]) -> Copy:
        """Copies rows, [width] each and of one dtype. Later changes to them are not in the copy."""
        pinned = self._buffer(_bytes(rows))
        copy = Copy(rows, pinned)
        if pinned is not None:
            weakref.finalize(copy, self._reuse, pinned)
        return copy

    def _buffer(self, size: int) -> torch.Tensor | None:
        """A pinned buffer [bytes] uint8 of `size` bytes at least; None where there can be none."""
        with self._lock:
            fits = [place for place, block in enumerate(self._free) if len(block) >= size]
            if fits:
                return self._free.pop(min(fits, key=lambda place: len(self._free[place])))
            size = 1 << (size - 1).bit_length()  # torch pins powers of two, whatever it is asked for
            if size > self._more:
                return None
            try:
                block = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:  # the system allows no more: ordinary memory is slower, and serves too
                logging.getLogger(__name__).warning("no pinned memory: %s", str(error).splitlines()[0])
                self._more = 0
                return None
            self._more -= size
            return block

    def _reuse(self, block: torch.Tensor) -> None:
        """block: [bytes] uint8."""
        with self._lock:
            self._free.append(block)


def _bytes(rows: Sequence[torch.Tensor]) -> int:
    return sum(row.nbytes for row in rows)
