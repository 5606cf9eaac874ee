"""Measures how many positions a base has, and refuses rows that are longer.

A table of positions has an end: a longer row is an index error on the CPU, and on a GPU an assertion that ends the
process. Rotary and other computed positions have no end. The base itself is measured, because the same key of
config.json means a table in one family of models and only a hint in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tuner.contract import InputError, Preparation

_TOKENS = 4


def check(base: Any, preparation: Preparation) -> None:
    """Raises InputError where a row is longer than the base's table of positions."""
    sets = [preparation.facts.get(name) or {} for name in ("train", "validation")]
    longest = max((int(found.get("max_length", 0)) for found in sets), default=0)
    most = table_of(base) if longest else None
    if most is not None and longest > most:
        raise InputError(
            f"the longest row has {longest} tokens, the base has {most} positions",
            where="data.max_length",
            expected=f"at most {most}",
            remedy=f"set data.max_length to {most}: longer rows are cut",
        )


def table_of(base: Any) -> int | None:
    """Tokens of the longest row that a base's table of positions allows; None where positions are computed."""
    words = base.get_input_embeddings()
    if not any(isinstance(module, torch.nn.Embedding) and module is not words for module in base.modules()):
        return None  # most bases; a pass through a base in the host's memory would be slow
    tokens = torch.zeros((1, _TOKENS), dtype=torch.long, device=words.weight.device)
    with _lookups() as seen, torch.no_grad():
        base(input_ids=tokens, use_cache=False)
    rows = [
        weight.shape[0] - int(indices.min())
        for indices, weight in seen
        if weight is not words.weight and indices.shape[-1:] == (_TOKENS,) and _ascends(indices)
    ]
    return min(rows, default=None)


def _ascends(indices: torch.Tensor) -> bool:
    """Whether consecutive `indices` [..., tokens] int64 differ by one: those of positions do, those of token types and
    of the tokens given here do not."""
    return bool((indices.diff(dim=-1) == 1).all())


@contextmanager
def _lookups() -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Within it, lookups in embedding tables are collected: indices [..., tokens] int64, and table [rows, features] in
    the base's dtype."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    plain = torch.nn.functional.embedding

    def noted(indices: torch.Tensor, weight: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        seen.append((indices, weight))
        return plain(indices, weight, *arguments, **more)

    torch.nn.functional.embedding = noted
    try:
        yield seen
    finally:
        torch.nn.functional.embedding = plain
