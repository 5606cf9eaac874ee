"""Turns the rows of a search into token ids and labels: what every encoder does, and the encoder of text.

`trainables.preparing` reads, checks and splits rows, hands each set to one encoder, and stores what it gives. Rows with
images have an encoder of their own (`trainables.images.encoding`).
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any

from trainables.data import review, store, templates, tokenizers, tokenizing
from trainables.data.findings import Finding, counting
from trainables.data.review import Review
from trainables.data.rows import Row, Rows
from trainables.data.tokens import Tokens
from trainables.settings import DataSettings, ModelSettings
from tuner.contract import Tell


class Encoder(AbstractContextManager["Encoder"]):
    """Turns rows in TRL's format into token ids and labels. A context manager that closes itself."""

    tokenizer: Any
    """With a pad token and the chat template of the settings."""
    notes: tuple[str, ...]
    """Sentences for the user about the tokenizer."""

    @abstractmethod
    def check(self, part: Review) -> list[Finding]:
        """What the chat template leaves out of reviewed rows. Raises InputError where that is what is learned."""

    @abstractmethod
    def encode(
        self, name: str, rows: Rows, part: Review, draft: store.Draft, tell: Tell
    ) -> tuple[Tokens, list[Finding]]:
        """Writes the tokens of a set, "train" or "validation", into `draft`; gives their numbers, and what is to be
        told of it. Raises InputError.

        rows: the set's, a part of the review's. tell: gets how far it is.
        """

    def facts(self) -> dict[str, Any]:
        """Facts for the preparation, beside those of the sets."""
        return {}

    def close(self) -> None:
        """Completes what it has written beside the sets. May be called twice."""

    def __exit__(self, *_: object) -> None:
        self.close()


class TextEncoder(Encoder):
    """Turns rows of text into token ids and labels."""

    def __init__(self, model: ModelSettings, data: DataSettings) -> None:
        """Loads the tokenizer. Raises InputError."""
        self._data = data
        self._place = data.chat_template or model.tokenizer
        self.tokenizer, self.notes = tokenizers.load(model, data)

    def check(self, part: Review) -> list[Finding]:
        """See Encoder."""
        if not part.format.conversational:
            return []
        rows = part.rows

        def row_of(index: int) -> Row:
            return next(review.shaped(rows.select([index]), part.format, self._data))

        templates.check(self.tokenizer, part.format, self._data, self._place, row_of(0), rows.where(0))
        return templates.unwritten(self.tokenizer, part.turns, row_of, rows.where, self._place)

    def encode(
        self, name: str, rows: Rows, part: Review, draft: store.Draft, tell: Tell
    ) -> tuple[Tokens, list[Finding]]:
        """See Encoder."""
        data = self._data
        first = next(review.shaped(rows, part.format, data))
        template = templates.check(self.tokenizer, part.format, data, self._place, first, rows.where(0))
        shaped = review.shaped(rows, part.format, data)
        count = counting(tell, f"tokenizing the {name} rows", len(rows))
        write = draft.writer(name)
        return tokenizing.tokenize(shaped, part.format, self.tokenizer, data, template, rows.where, write, count), []
