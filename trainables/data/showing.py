"""Decodes a tokenized row into pieces: what is learned, what is not, and what is cut off."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from trainables.data.tokens import IGNORED
from tuner.contract import Piece

_CONTEXT = 8
"""Tokens before a piece that are decoded with it: some tokenizers drop a space at the beginning of a text."""


def pieces(ids: Sequence[int], labels: Sequence[int], tokenizer: Any, limit: int, most: int) -> tuple[Piece, ...]:
    """The row as runs of tokens with one fate. The first token counts as its label says, although no token predicts it:
    it may be half a character. most: tokens of a run that are decoded; those in its middle are hidden
    beyond that."""

    def fate(index: int) -> tuple[bool, bool]:
        return labels[index] != IGNORED, index >= limit

    found = []
    for (learned, beyond), run in groupby(range(len(ids)), fate):
        indices = list(run)
        begin, end = indices[0], indices[-1] + 1
        hidden = max(0, end - begin - most)
        if not hidden:
            found.append(Piece(_decoded(ids, begin, end, tokenizer), learned, beyond))
            continue
        head, tail = begin + most - most // 2, end - most // 2
        found.append(
            Piece(_decoded(ids, begin, head, tokenizer), learned, beyond, hidden, _decoded(ids, tail, end, tokenizer))
        )
    return tuple(found)


def _decoded(ids: Sequence[int], begin: int, end: int, tokenizer: Any) -> str:
    """The text of ids[begin:end] as it stands in the row."""
    before = list(ids[max(0, begin - _CONTEXT) : begin])
    if before:
        known = _text(before, tokenizer)
        whole = _text([*before, *ids[begin:end]], tokenizer)
        if whole.startswith(known):
            return whole[len(known) :]
    return _text(list(ids[begin:end]), tokenizer)


def _text(ids: list[int], tokenizer: Any) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
