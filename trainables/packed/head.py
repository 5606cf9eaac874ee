"""The loss of a batch from the last hidden states, by the head that SFTTrainer uses."""

from __future__ import annotations

from collections.abc import Mapping
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


def unlike_own(model: Any, hidden: torch.Tensor, targets: torch.Tensor, own: torch.Tensor, rounding: float) -> str:
    """In words: by what SFTTrainer's output layer differs from the base's own; "" where they give the same loss.

    hidden: [tokens, features] in the base's dtype: the last hidden states of a row. targets: [targets] int64, its last
    tokens. own: [] float32, the mean loss of the base's own logits. rounding: by how much
    losses may differ, relative to `own`.
    """
    asked = _Asked(model.config.get_text_config(), {})
    hidden = hidden[-len(targets) - 1 : -1]

    def same(config: _Asked) -> bool:
        loss = _mean_loss(model, config, hidden, targets)
        return bool((loss - own).abs() <= rounding * own.abs().clamp(min=1.0))

    if same(asked):
        return ""
    for name, value in asked.numbers.items():
        if same(_Asked(asked.config, {name: None})):
            return (f"SFTTrainer's loss changes logits by {name} {value:g} of the config, and its own forward does "
                    "not: a row's loss differs")  # fmt: skip
    has = [f"{name} {value:g}" for name, value in asked.config.to_dict().items() if "logit" in name and _number(value)]
    told = f" (its config has {', '.join(has)})" if has else ""
    return f"its own forward computes other logits than SFTTrainer's output layer{told}: a row's loss differs"


def _mean_loss(model: Any, config: _Asked, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[] float32: the loss by SFTTrainer's output layer, made with another config."""
    head = Head(SimpleNamespace(config=config, get_output_embeddings=model.get_output_embeddings))
    with torch.no_grad():
        scored = head.forward(hidden.unsqueeze(0), shift_labels=targets.unsqueeze(0), fused_lm_head=True)
    return -scored.log_probs[0].float().mean()


class _Asked:
    """A config that keeps which numbers TRL asks it for, so that no list of their names goes stale."""

    def __init__(self, config: Any, instead: Mapping[str, Any]) -> None:
        """instead: values that it gives in place of the config's own."""
        self.config, self._instead = config, instead
        self.numbers: dict[str, float] = {}
        """By name, in the order in which they were asked for."""

    def get_text_config(self) -> _Asked:
        """Itself, which is the part of a config that TRL reads."""
        return self

    def __getattr__(self, name: str) -> Any:
        value = self._instead[name] if name in self._instead else getattr(self.config, name)
        if _number(value):
            self.numbers[name] = value
        return value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
