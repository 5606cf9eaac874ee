"""Changes the base so that it takes a batch of several slots: its attention, its linear layers, its norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from trainables.models import base
from trainables.packed import adapted_layers, bases, cuda_graphs, norms
from trainables.packed.batches import Batch
from trainables.packed.cuda_graphs import CudaGraphs
from trainables.packed.head import Head
from trainables.packed.layer_context import BatchContext


class PackedModel:
    """The base, changed so that it takes consecutive rows of several slots."""

    def __init__(self, model: Any, *, capture: bool) -> None:
        """capture: on a GPU, captures training passes as CUDA graphs where that makes steps faster; see cuda_graphs.py.

        Raises Unpackable where the base cannot be changed so.
        """
        self.model = model
        self.device = base.device()
        self.autocast = autocast(model)
        """Whether products are computed in bf16 under autocast."""
        self.head = Head(model)
        self.attention = bases.row_attention(model)
        if self.device.type == "cuda":
            norms.attach(model)
        self.context = BatchContext()
        self.layers = adapted_layers.attach(model, self.context)
        enabled = capture and cuda_graphs.supported(self.device)
        show = partial(self._show, training=True)
        self.graphs = CudaGraphs(self.backbone, show, self.context, self.layers.values(), enabled=enabled)

    def losses(self, batch: Batch, hidden: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        """[parts] float32: the negative log-likelihood of each part, summed over its targets. The batch must be shown.

        hidden: computes the last hidden states, [1, tokens, features] in the base's dtype.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.graphs.retry_without_graphs(lambda: self.head.losses(hidden(batch), batch))

    def measure(self, batch: Batch) -> torch.Tensor:
        """The losses of a batch, [parts] float32 as `losses` gives them, without gradients and dropout."""
        with torch.no_grad(), self.shown(batch, training=False):
            return self.losses(batch, self.backbone)

    def backbone(self, batch: Batch) -> torch.Tensor:
        """The base's last hidden states, [1, tokens, features] in its dtype. The batch must be shown."""
        outputs = self.model.base_model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        hidden: torch.Tensor = outputs.last_hidden_state
        return hidden

    @contextmanager
    def shown(self, batch: Batch, *, training: bool) -> Iterator[None]:
        """Within it attention and adapters know where the batch's rows are. The backward must run within it too."""
        self._show(batch, training=training)
        try:
            yield
        finally:
            self.context.segments = ()
            self.attention.batch = None

    @property
    def recomputes(self) -> bool:
        """Whether the base supports gradient checkpointing."""
        return bool(getattr(self.model, "supports_gradient_checkpointing", False))

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Within it layers recompute their activations in the backward, with the dropout masks of the forward.

        For one pass only: PEFT initialises adapters differently where gradient checkpointing is on.
        """
        recompute = partial(checkpoint, use_reentrant=False, context_fn=self._same_masks)
        self.model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=recompute)
        try:
            yield
        finally:
            self.model._set_gradient_checkpointing(enable=False)

    def _same_masks(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """The contexts of a layer's forward and of its recomputation, which draws the same dropout masks."""
        at_forward: list[torch.Tensor] = []

        @contextmanager
        def first() -> Iterator[None]:
            at_forward.extend(stream.get_state() for stream in self._streams())
            yield

        @contextmanager
        def again() -> Iterator[None]:
            now = [stream.get_state() for stream in self._streams()]
            self._set_streams(at_forward)
            try:
                yield
            finally:
                self._set_streams(now)

        return first(), again()

    def _streams(self) -> list[torch.Generator]:
        """The generators of the slots that have dropout."""
        return [dropout.stream for dropout in self.context.dropouts.values()]

    def _set_streams(self, states: Sequence[torch.Tensor]) -> None:
        """states: of the slots' generators, [bytes] uint8 each."""
        for stream, state in zip(self._streams(), states, strict=True):
            stream.set_state(state)

    def _show(self, batch: Batch, *, training: bool) -> None:
        """Makes a batch the one that attention and adapters read from now on."""
        self.context.show(batch, training=training)
        self.attention.batch = batch


def autocast(model: Any) -> bool:
    """Whether products are computed in bf16 under autocast, as SFTTrainer does on a GPU."""
    return base.device().type == "cuda" and base.computes_in_bf16(model)
