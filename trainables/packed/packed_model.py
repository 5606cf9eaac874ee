"""A batch's way through the base: shown to its attention and to its adapters, then through the head."""

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
from trainables.packed.cuda_graphs import Replays
from trainables.packed.head import Head
from trainables.packed.layer_context import Board


class Passes:
    """The base, changed to take rows of several slots one behind the other. Raises Unpackable where it cannot be.

    record: on a GPU, training passes are recorded and replayed where that pays, see replays.py.
    """

    def __init__(self, model: Any, *, record: bool) -> None:
        self.model = model
        self.device = base.device()
        self.autocast = autocast(model)
        self.head = Head(model)
        self.attention = bases.row_attention(model)
        if self.device.type == "cuda":
            norms.attach(model)
        self.board = Board()
        self.sites = adapted_layers.attach(model, self.board)
        on = record and cuda_graphs.possible(self.device)
        show = partial(self._show, training=True)
        self.replays = Replays(self.backbone, show, self.board, self.sites.values(), on=on)

    def losses(self, batch: Batch, hidden: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
        """The negative log-likelihood of every part's rows, summed over their targets. The batch must be shown."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.replays.making_way(lambda: self.head.losses(hidden(batch), batch))

    def measure(self, batch: Batch) -> torch.Tensor:
        """The same of a batch that nothing is learned from."""
        with torch.no_grad(), self.shown(batch, training=False):
            return self.losses(batch, self.backbone)

    def backbone(self, batch: Batch) -> torch.Tensor:
        """The base's last hidden states, [1, tokens, features]."""
        outputs = self.model.base_model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        hidden: torch.Tensor = outputs.last_hidden_state
        return hidden

    @contextmanager
    def shown(self, batch: Batch, *, training: bool) -> Iterator[None]:
        """Meanwhile attention and adapters know where the batch's rows lie; a backward pass needs that too."""
        self._show(batch, training=training)
        try:
            yield
        finally:
            self.board.segments = ()
            self.attention.batch = None

    @property
    def recomputes(self) -> bool:
        """Whether the base's layers can compute their activations twice, and not keep them."""
        return bool(getattr(self.model, "supports_gradient_checkpointing", False))

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Meanwhile they do, with the dropout masks that they drew the first time. For this pass alone: what PEFT makes
        of a base depends on whether it is set."""
        again = partial(checkpoint, use_reentrant=False, context_fn=self._drawing_alike)
        self.model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=again)
        try:
            yield
        finally:
            self.model._set_gradient_checkpointing(enable=False)

    def _drawing_alike(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What a layer runs in, and what it runs in again."""
        began: list[torch.Tensor] = []

        @contextmanager
        def first() -> Iterator[None]:
            began.extend(stream.get_state() for stream in self._streams())
            yield

        @contextmanager
        def again() -> Iterator[None]:
            now = [stream.get_state() for stream in self._streams()]
            self._set_streams(began)
            try:
                yield
            finally:
                self._set_streams(now)

        return first(), again()

    def _streams(self) -> list[torch.Generator]:
        return [dropout.stream for dropout in self.board.dropouts.values()]

    def _set_streams(self, states: Sequence[torch.Tensor]) -> None:
        for stream, state in zip(self._streams(), states, strict=True):
            stream.set_state(state)

    def _show(self, batch: Batch, *, training: bool) -> None:
        self.board.show(batch, training=training)
        self.attention.batch = batch


def autocast(model: Any) -> bool:
    """Whether products are computed in bf16 whatever the weights are, as SFTTrainer does on a GPU."""
    return base.device().type == "cuda" and base.computes_in_bf16(model)
