"""Measures the validation losses of several slots together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch

from trainables import runtime
from trainables.packed.batches import SlotRows, collate
from trainables.packed.chunking import Chunking, Chunks
from trainables.packed.packed_model import PackedModel
from trainables.packed.rows import FlatRows
from tuner.contract import Fault, Reason

_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Most tokens of a forward pass: on a CPU, passes that fit into its cache are fastest; a GPU wants large ones."""


class Evaluator:
    """Measures slots on the validation rows."""

    def __init__(self, packed: PackedModel, rows: FlatRows, batch_size: int, padding: int) -> None:
        """batch_size: rows of a validation batch. padding: the id of the token that batches are padded with."""
        self._packed, self._rows, self._batch_size, self._padding = packed, rows, batch_size, padding
        self.chunking = Chunking(_TOKENS.get(packed.device.type, 4096))

    def losses(self, slots: Sequence[int]) -> list[float | None]:
        """Each slot's eval_loss as SFTTrainer defines it: the mean of the batches' means, weighted by their rows.

        Batches are in file order. None where there are no rows. Raises Fault where a row alone does not fit into
        memory.
        """
        total, size = len(self._rows), self._batch_size
        if not total:
            return [None] * len(slots)
        batches = [numpy.arange(begin, min(begin + size, total)) for begin in range(0, total, size)]
        weights = torch.tensor([len(batch) / total for batch in batches], dtype=torch.float64)
        targets = torch.tensor([max(1, self._rows.targets(batch)) for batch in batches], dtype=torch.float64)
        found = self._sums([(slot, batch) for batch in batches for slot in slots])
        means = found.double().cpu().view(len(batches), len(slots)).t() / targets
        return [float(value) for value in means @ weights]

    def effect(self, slot: int) -> float:
        """The summed loss of one validation batch with the slot's adapter minus without it."""
        part = slot, numpy.arange(min(len(self._rows), self._batch_size))
        with_adapter = self._sums([part]).item()
        layers = self._packed.layers
        scales = {name: layer.scales[slot] for name, layer in layers.items()}
        for layer in layers.values():
            layer.rescale(slot, 0.0)
        without = self._sums([part]).item()
        for name, layer in layers.items():
            layer.rescale(slot, scales[name])
        return with_adapter - without

    def _sums(self, parts: Sequence[SlotRows]) -> torch.Tensor:
        """[parts] float32: the negative log-likelihood of each part, summed over its targets. Raises Fault."""
        sums = torch.zeros(len(parts), device=self._packed.device)

        def add(chunks: Chunks) -> None:
            batch = collate(
                [(chunk.slot, chunk.rows) for chunk in chunks], self._rows, self._padding, self._packed.device
            )
            places = torch.tensor([chunk.part for chunk in chunks], device=self._packed.device)
            sums.index_add_(0, places, self._packed.measure(batch))

        while short := self.chunking.run(parts, self._rows, add):
            self._packed.graphs.clear()
            if not self.chunking.shrink(short, self._rows):
                length = self._rows.tokens(short[0].rows)
                raise Fault(Reason.OUT_OF_MEMORY, f"at an evaluation: out of memory at a single row of {length} tokens",
                            "lower data.max_length", runtime.device_name())  # fmt: skip
            sums.zero_()
        return sums
