"""Finds out how many positions a base has, and refuses rows that are longer.

A table of positions has an end: a longer row is an index error on the CPU, and on a GPU an assertion that ends the
process. Rotary and other computed positions have no end. The same key of config.json means a table in one family of
models and only a hint in another. So a worker measures the base itself; before that, without torch, the families that
are known to have a table are refused by their config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tuner.contract import InputError, Preparation

if TYPE_CHECKING:
    import torch

_TOKENS = 4

_TABLES = {
    **dict.fromkeys(("gpt2", "gpt_bigcode", "openai-gpt", "gptj", "codegen", "ctrl"), "n_positions"),
    **dict.fromkeys(("gpt_neo", "opt", "biogpt"), "max_position_embeddings"),
}
"""By model type: the key of config.json that has the size of a table of positions. A family that is not in here is
refused by the worker that measures it."""


def check_length(config: Mapping[str, Any], max_length: int) -> str:
    """A note for the user where rows of `max_length` tokens would be longer than what the base was trained for; else
    "". config: the content of config.json.

    Raises InputError where they would be longer than a table of positions.
    """
    text = config.get("text_config") or config
    key = _TABLES.get(str(text.get("model_type")), "")
    most = text.get(key or "max_position_embeddings")
    if not isinstance(most, int) or max_length <= most:
        return ""
    if key:
        raise InputError(f"data.max_length is {max_length}, and the base has a table of {most} positions ({key} in its "
                         "config.json)", where="data.max_length", expected=f"at most {most}",
                         remedy=f"set data.max_length to {most}: longer rows are cut")  # fmt: skip
    return (f"data.max_length {max_length} is beyond the {most} positions that config.json names: rows between them "
            f"are longer than what the base was trained for; data.max_length={most} cuts them")  # fmt: skip


def table_in(config: Mapping[str, Any]) -> int | None:
    """Rows of a base's table of positions, by the content of its config.json; None where the family has none that is
    known here."""
    text = config.get("text_config") or config
    most = text.get(_TABLES.get(str(text.get("model_type")), ""))
    return most if isinstance(most, int) else None


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
    import torch

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
    import torch

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
