"""What slots hold, on its way to the host while the engine trains on.

A copy into ordinary memory holds the engine up twice: it waits for all that the GPU has been given to do, and then for
fresh pages to be found for some 100 MB a slot. On an H200 that was 11 of the 38 s in which 16 trials of 60 steps
trained on a 1.5B base. Into pinned memory a copy is one more thing that the GPU has been given to do, and torch keeps
the pages for the next.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence

import torch

_PINNED_BYTES = 4 << 30
"""Of pinned memory at a time, which the rest of the machine cannot have. What is more goes into ordinary memory."""


class Copy:
    """Rows on the host as they were when they were asked for. values: [rows, width], whole after `wait`."""

    def __init__(self, rows: Sequence[torch.Tensor], *, pinned: bool) -> None:
        self.values = torch.empty(len(rows), len(rows[0]), dtype=rows[0].dtype, pin_memory=pinned)
        for place, row in zip(self.values, rows, strict=True):
            place.copy_(row, non_blocking=pinned)
        self._arrives: Callable[[], None] | None = None
        if pinned:
            event = torch.cuda.Event()
            event.record()
            self._arrives = event.synchronize

    def wait(self) -> None:
        """Returns when the values are there. For the thread that reads them: the engine's has other things to do."""
        if self._arrives is not None:
            self._arrives()


class Copies:
    """Makes copies, the pinned ones within a bound."""

    def __init__(self, device: torch.device, most_pinned: int = _PINNED_BYTES) -> None:
        self._left = most_pinned if device.type == "cuda" else 0
        self._books = threading.RLock()  # a copy is let go of by the thread that wrote it

    def of(self, rows: Sequence[torch.Tensor]) -> Copy:
        """Copies rows of one length; what is done to them afterwards is not in it."""
        size = sum(row.nbytes for row in rows)
        with self._books:
            pinned = size <= self._left
            self._left -= size if pinned else 0
        if not pinned:
            return Copy(rows, pinned=False)
        copy = Copy(rows, pinned=True)
        weakref.finalize(copy, self._give_back, size)
        return copy

    def _give_back(self, size: int) -> None:
        with self._books:
            self._left += size
