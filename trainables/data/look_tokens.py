"""Turns the rows of a look into tokens, before they are cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trainables.data import image_parts, tokenizing
from trainables.data.formats import Format
from trainables.data.look_sets import LookedSet
from trainables.data.tokens import IGNORED, Tokens
from trainables.settings import DataSettings
from tuner.contract import InputError

_WHOLE = 2**31 - 1
_BATCH = 64


@dataclass(frozen=True)
class Tokenized:
    """A row in tokens, before it is cut."""

    index: int
    ids: list[int]
    labels: list[int]
    pictures: tuple[str, ...] = ()
    """Its images, small, each as a data URI; made where the row is shown."""


class TokenReader:
    """Turns rows into tokens, uncut."""

    def __init__(self, fmt: Format, tokenizer: Any, data: DataSettings, template: str | None) -> None:
        """template: replaces the tokenizer's chat template."""
        self.fmt, self.tokenizer, self.data, self.template = fmt, tokenizer, data, template

    def read(
        self, found: LookedSet, indices: Sequence[int], wanted: Collection[int]
    ) -> Iterator[Tokenized | tuple[int, InputError]]:
        """Yields the rows in order; for a row that cannot be learned, its index and the error. wanted: the indices of
        those that are shown."""
        for begin in range(0, len(indices), _BATCH):
            yield from self._batch(found, indices[begin : begin + _BATCH])

    def figures(self, found: LookedSet) -> dict[str, str]:
        """What is to be said of a set that was read, by a short label."""
        return {}

    def _batch(self, found: LookedSet, indices: Sequence[int]) -> Iterator[Tokenized | tuple[int, InputError]]:
        try:
            made = self._tokens(found, indices, self.data)
        except InputError as error:
            if len(indices) == 1:
                yield indices[0], error
            else:
                yield from (one for index in indices for one in self._batch(found, [index]))
            return
        if made.rows == len(indices):
            for index, (begin, end) in zip(indices, pairwise([0, *made.ends]), strict=True):
                yield Tokenized(index, made.input_ids[begin:end].tolist(), made.labels[begin:end].tolist())
        elif len(indices) == 1:  # it has no label; with another mask it has its ids
            every = self.data.model_copy(update={"completion_only_loss": False, "assistant_only_loss": False})
            ids = self._tokens(found, indices, every).input_ids.tolist()
            yield Tokenized(indices[0], ids, [IGNORED] * len(ids))
        else:
            yield from (one for index in indices for one in self._batch(found, [index]))

    def _tokens(self, found: LookedSet, indices: Sequence[int], data: DataSettings) -> Tokens:
        rows = [found.shaped[index] for index in indices]
        rows = [image_parts.in_parts(row) for row in rows] if self.fmt.images else rows
        whole = data.model_copy(update={"max_length": _WHOLE})
        where = [found.rows.where(index) for index in indices]
        return tokenizing.tokenize(rows, self.fmt, self.tokenizer, whole, self.template, where.__getitem__)
