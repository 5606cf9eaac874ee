"""The loss of a batch from the last hidden states, by the head that SFTTrainer uses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from trl.trainer import add_fused_lm_head

from trainables.packed.batches import Batch


class Head:
    """TRL's fused output layer over the positions that have a target, and over no others.

    TRL's forward applies the base's own scaling and capping of logits. On a CPU it scores every position that it is
    given, and two of three in rows with short completions are prompt or padding; so it is given only those with a
    target. TRL takes this class for a model, whose backbone returns hidden states that were computed before.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config = model.config
        add_fused_lm_head(self, outputs=("log_probs",))

    def forward(self, *_: Any, **__: Any) -> Any:
        """Replaced by TRL's fused forward in the constructor."""
        raise NotImplementedError

    def base_model(self, hidden: torch.Tensor, **_: Any) -> Any:
        """Gives back `hidden` [1, targets, features]: the backbone has run before."""
        return SimpleNamespace(last_hidden_state=hidden)

    def get_output_embeddings(self) -> Any:
        """The base's output layer."""
        return self._model.get_output_embeddings()

    def losses(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """[parts] float32: the negative log-likelihood of each part, summed over its targets.

        hidden: [1, tokens, features] in the base's dtype: its last hidden states.
        """
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch.target_positions)
        scored = self.forward(chosen.unsqueeze(0), shift_labels=batch.target_ids.unsqueeze(0), fused_lm_head=True)
        # Summed part by part, so that a loss that is not finite changes no other part. unsafe: the counts need no check
        return torch.segment_reduce(-scored.log_probs[0].float(), "sum", lengths=batch.target_counts, unsafe=True)
