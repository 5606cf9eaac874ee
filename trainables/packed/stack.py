"""The adapters of all slots in flat buffers: weights, gradients and moments, one row a slot.

With one row a slot, clipping and AdamW are one kernel each for a slot, however many modules the base has: over the 392
matrices of a 1.5B base one by one, they take longer with 16 slots than the forward pass. Every module's part is a view
of fixed shape and address, so a CUDA graph that was captured over it outlives the slot's trials.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch

_RANKS = 8
"""Ranks are padded to a multiple of this: grouped_mm wants rows of a multiple of 16 bytes, 8 values in bf16."""

_MOST_INDEXES = 16
"""Index tensors that `sample` keeps on the device, 6 MB each over a 1.5B base: one for each rank and set of modules."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""A and B of one module, or gradients or moments of their shapes."""
Adapter = Mapping[str, Pair]
"""Module name to A [rank, in] and B [out, rank], as PEFT lays them out."""


@dataclass(frozen=True)
class LinearShape:
    """The size of a linear layer."""

    inputs: int
    """Features of an input."""
    outputs: int
    """Features of an output."""


class Stack:
    """The buffers of all slots. Adapters of smaller rank are padded with zeros, which stay exactly zero under AdamW."""

    def __init__(
        self, shapes: Mapping[str, LinearShape], slots: int, dtype: torch.dtype, compute: torch.dtype, device: Any
    ) -> None:
        """shapes: of the layers, by name. dtype: of weights, gradients and moments. compute: the dtype of products with
        the weights."""
        self.shapes, self.slots = dict(shapes), slots
        self.dtype, self.compute, self.device = dtype, compute, device
        self.rank = 0
        """The padded rank, the same for all slots."""
        self.ranks = [0] * slots
        """The true rank of each slot's adapter; 0 where the slot is empty."""
        self.steps = torch.zeros(slots, dtype=torch.float32, device=device)
        """[slots] float32: optimizer steps that each slot has taken."""
        self._allocate(0)

    def _allocate(self, rank: int) -> None:
        """Sets `weights`, `grads`, `first` and `second` (AdamW's moments), [slots, width] in `dtype`, and `cast`, the
        same weights in `compute`; all zeros. Nothing changes where there is too little memory for one of them."""
        width = sum(rank * (shape.inputs + shape.outputs) for shape in self.shapes.values())
        size = (self.slots, width)
        weights, grads, first, second = (torch.zeros(size, dtype=self.dtype, device=self.device) for _ in range(4))
        # Products read the weights themselves, or a copy in bf16 that is cast once a step and not at every product
        same = self.compute == self.dtype
        cast = weights if same else torch.zeros(size, dtype=self.compute, device=self.device)
        # Assigned only after all are allocated
        self.weights, self.grads, self.first, self.second, self.cast = weights, grads, first, second, cast
        self.rank, self.width = rank, width
        self._sample_index: dict[tuple[int, frozenset[str], int], torch.Tensor] = {}

    def views(self, buffer: torch.Tensor) -> dict[str, Pair]:
        """Every module's A [rows, rank, in] and B [rows, out, rank] as views of `buffer` [rows, width]."""
        rows = len(buffer)
        return {
            name: (
                buffer[:, begin:middle].view(rows, self.rank, shape.inputs),
                buffer[:, middle:end].view(rows, shape.outputs, self.rank),
            )
            for name, shape, begin, middle, end in self._layout()
        }

    def _layout(self) -> Iterator[tuple[str, LinearShape, int, int, int]]:
        """Every module's name and shape, and the indices in a row where its A begins, its B begins, its B ends."""
        begin = 0
        for name, shape in self.shapes.items():
            middle = begin + self.rank * shape.inputs
            end = middle + self.rank * shape.outputs
            yield name, shape, begin, middle, end
            begin = end

    def grow(self, rank: int) -> bool:
        """Pads all adapters to `rank` at least. Whether the buffers are new: all views of the old ones are then
        stale."""
        if rank <= self.rank:
            return False
        old = [self.views(buffer) for buffer in self._state()]
        before = self.rank
        self._allocate(-(-rank // _RANKS) * _RANKS)
        for buffer, views in zip(self._state(), old, strict=True):
            for name, (a, b) in self.views(buffer).items():
                a[:, :before].copy_(views[name][0])
                b[:, :, :before].copy_(views[name][1])
        self.recast()
        return True

    def _state(self) -> tuple[torch.Tensor, ...]:
        """The buffers that a higher rank has to move, [slots, width] each."""
        return self.weights, self.grads, self.first, self.second

    def put(self, slot: int, adapter: Adapter, rank: int) -> None:
        """Writes a new adapter into a slot, with gradients and moments of zero. rank: at most the padded rank."""
        self.clear(slot)
        self.ranks[slot] = rank
        self.fill(slot, adapter, self.weights)

    def fill(self, slot: int, values: Adapter, buffer: torch.Tensor) -> None:
        """Writes `values`, on the host and of the slot's rank, into its row of `buffer` [slots, width], and zeros into
        the rest of the row."""
        rank = self.ranks[slot]
        row = torch.zeros(1, self.width, dtype=buffer.dtype)
        for name, (a, b) in self.views(row).items():
            if name in values:
                a[0, :rank].copy_(values[name][0])
                b[0, :, :rank].copy_(values[name][1])
        buffer[slot].copy_(row[0])
        if buffer is self.weights:
            self.recast([slot])

    def get(self, slot: int, names: Any) -> dict[str, Pair]:
        """The adapter of a slot as views, A [rank, in] and B [out, rank] at its true rank. names: of its modules."""
        return self._parts(self.weights, slot, self.ranks[slot], names)

    def parts(self, row: torch.Tensor, slot: int, names: Any) -> dict[str, Pair]:
        """As `get`, but views of `row` [width], a copy of the slot's row of one of the buffers."""
        return self._parts(row.unsqueeze(0), 0, self.ranks[slot], names)

    def sample(self, slot: int, names: Collection[str], count: int) -> torch.Tensor:
        """[elements] in `dtype`: the first `count` weights of A and of B of each module, read in one kernel."""
        key = self.ranks[slot], frozenset(names), count
        if key not in self._sample_index:
            found, rank = [], self.ranks[slot]
            for name, shape, begin, middle, _ in self._layout():
                if name in names:
                    lines, columns = divmod(numpy.arange(min(count, shape.outputs * rank)), rank)
                    found.append(begin + numpy.arange(min(count, rank * shape.inputs)))
                    found.append(middle + lines * self.rank + columns)
            if len(self._sample_index) == _MOST_INDEXES:
                self._sample_index.clear()
            self._sample_index[key] = torch.from_numpy(numpy.concatenate(found)).to(self.device)
        return self.weights[slot].index_select(0, self._sample_index[key])

    def _parts(self, buffer: torch.Tensor, row: int, rank: int, names: Any) -> dict[str, Pair]:
        """A [rank, in] and B [out, rank] of each module, as views of one row of `buffer` [rows, width]."""
        views = self.views(buffer)
        return {name: (views[name][0][row, :rank], views[name][1][row, :, :rank]) for name in names}

    def clear(self, slot: int) -> None:
        """Empties a slot: sets its row of every buffer to zero, NaNs included."""
        for buffer in (*self._state(), self.cast):
            buffer[slot].zero_()
        self.steps[slot] = 0.0
        self.ranks[slot] = 0

    def recast(self, slots: list[int] | None = None) -> None:
        """Updates the copy of the weights that products read. slots: those whose weights have changed; None: all."""
        if self.cast is self.weights:
            return
        if slots is None:
            self.cast.copy_(self.weights)
            return
        for slot in slots:
            self.cast[slot].copy_(self.weights[slot])
