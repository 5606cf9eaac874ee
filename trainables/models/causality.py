"""Checks that a base predicts each token only from the tokens before it.

Transformers makes a language model of a BERT too. Its tokens attend to those after them, so it reaches a loss near zero
by copying.
"""

from __future__ import annotations

from typing import Any

import torch

from tuner.contract import InputError

_TOKENS = 8
_EQUAL = {torch.float32: 1e-3}
"""By dtype: tolerance relative to the largest logit."""
_EQUAL_LOW = 3e-2
"""The tolerance in lower precision, in which experts round otherwise with other tokens."""


def require_causal(model: Any, where: str) -> None:
    """Raises InputError where a token's logits change with a later token.

    Takes two passes over eight tokens, unless all of the model's attention layers say that they are causal. A model on
    which such a pass fails is accepted.
    """
    said = [module.is_causal for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)]
    if said and all(said):
        return
    try:
        sees_ahead = _sees_ahead(model)
    except Exception:
        return
    if sees_ahead:
        raise InputError(
            f"the base is no causal language model: in a {type(model).__name__} as this config.json has it, tokens see "
            "those after them, and would learn to copy",
            where=where,
            expected="a decoder, which predicts each token from those before it",
        )


def _sees_ahead(model: Any) -> bool:
    """Whether another last token changes the logits of the tokens before it."""
    embeddings = model.get_input_embeddings()
    row = torch.arange(_TOKENS, device=embeddings.weight.device)[None] % (embeddings.num_embeddings - 1)
    other = row.clone()
    other[0, -1] = embeddings.num_embeddings - 1
    with torch.no_grad():
        before, after = (model(input_ids=ids).logits[0, :-1].float() for ids in (row, other))
    allowed = _EQUAL.get(model.dtype, _EQUAL_LOW) * before.abs().max()
    return bool((before - after).abs().max() > allowed)
