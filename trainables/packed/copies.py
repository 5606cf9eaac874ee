"""What slots hold, on its way to the host while the engine trains on.

A copy into ordinary memory holds the engine up twice: it waits for all that the GPU has been given to do, and then for
fresh pages to be found for some 100 MB a slot. That was 10 of the 36 s in which 16 trials of 60 steps trained on a 1.5B
base (H200). Into pinned memory a copy is one more thing that the GPU has been given to do.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Sequence

import torch

_PINNED_BYTES = 4 << 30
"""Of an engine; nothing else on the machine can have them. What is more goes into ordinary memory."""


class Copy:
    """Rows on the host as they were when they were asked for. values: [rows, width], whole after `wait`."""

    def __init__(self, rows: Sequence[torch.Tensor], pinned: torch.Tensor | None) -> None:
        shape = len(rows), len(rows[0])
        if pinned is None:
            self.values = torch.empty(shape, dtype=rows[0].dtype)
        else:
            self.values = pinned[: _bytes(rows)].view(rows[0].dtype).view(shape)
        for place, row in zip(self.values, rows, strict=True):
            place.copy_(row, non_blocking=pinned is not None)
        self._arrived = None if pinned is None else torch.cuda.Event(blocking=True)
        if self._arrived is not None:
            self._arrived.record()

    def wait(self) -> None:
        """Returns when the values are there. For the thread that reads them: the engine's has other things to do."""
        if self._arrived is not None:
            self._arrived.synchronize()


class Copies:
    """Makes copies, in pinned memory of its own where there is a GPU: what is given back is there for the next, which
    the GPU writes after all that it was told before. most_pinned: bytes of it, ever."""

    def __init__(self, device: torch.device, most_pinned: int = _PINNED_BYTES) -> None:
        self._more = most_pinned if device.type == "cuda" else 0
        self._free: list[torch.Tensor] = []
        self._books = threading.RLock()  # a copy is let go of by the thread that wrote it

    def of(self, rows: Sequence[torch.Tensor]) -> Copy:
        """Copies rows of one length; what is done to them afterwards is not in it."""
        pinned = self._take(_bytes(rows))
        copy = Copy(rows, pinned)
        if pinned is not None:
            weakref.finalize(copy, self._give_back, pinned)
        return copy

    def _take(self, size: int) -> torch.Tensor | None:
        with self._books:
            fits = [place for place, block in enumerate(self._free) if len(block) >= size]
            if fits:
                return self._free.pop(min(fits, key=lambda place: len(self._free[place])))
            whole = 1 << (size - 1).bit_length()  # torch pins powers of two, whatever it is asked for
            if whole > self._more:
                return None
            try:
                block = torch.empty(whole, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:  # the system allows no more; ordinary memory is slower and does as well
                logging.getLogger(__name__).warning("no pinned memory: %s", str(error).splitlines()[0])
                self._more = 0
                return None
            self._more -= whole
            return block

    def _give_back(self, block: torch.Tensor) -> None:
        with self._books:
            self._free.append(block)


def _bytes(rows: Sequence[torch.Tensor]) -> int:
    return sum(row.nbytes for row in rows)
