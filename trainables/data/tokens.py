"""Tokenized rows as flat arrays, and what was counted while they were made."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

IGNORED = -100
"""The label of a token that is no target, as torch's cross-entropy has it."""
_HELD = 1 << 20
"""Tokens that are held before `full` takes them: 8 MB."""


@dataclass
class Tokens:
    """Tokenized rows as two flat arrays and the end of each row, and what was left out.

    With `full`, the arrays hold at most a million tokens and one row: what came before was handed over. All numbers are
    those of all rows.
    """

    input_ids: array[int] = field(default_factory=lambda: array("i"))
    """[tokens] int32."""
    labels: array[int] = field(default_factory=lambda: array("i"))
    """[tokens] int32: the token's id, or -100 where it is no target."""
    ends: array[int] = field(default_factory=lambda: array("q"))
    """[rows] int64: where each row ends, which is the index of the token behind its last."""
    texts: list[str] = field(default_factory=list)
    """Of rows with images: each in TRL's format, as JSON with the places of its images; empty for text."""
    begin: int | None = None
    """The token that begins every row; None where there is none."""
    full: Callable[[Tokens], None] | None = None
    """Takes the rows that are held, before they are forgotten."""
    rows: int = 0
    """Rows that are kept."""
    tokens: int = 0
    """Their tokens."""
    label_tokens: int = 0
    """Number of targets. The first token of a row is never one: no token predicts it."""
    highest: int = 0
    """The largest token id."""
    longest_kept: int = 0
    """Tokens of the longest row after truncation."""
    dropped: int = 0
    """Rows left out because no label is within max_length."""
    truncated: int = 0
    """Rows longer than max_length."""
    longest: int = 0
    """Tokens of the longest row before truncation."""
    longest_prompt: int = 0
    """Tokens of the longest prompt, before truncation."""
    begun_twice: int = 0
    """Kept rows that begin with `begin` twice."""
    masked_prompts: int = 0
    """Rows that have labels, but all of them beyond max_length."""
    image_tokens: int = 0
    """Kept tokens in whose places a base puts what it sees."""

    def add(self, ids: list[int], labels: list[int], limit: int, text: str = "") -> None:
        """Adds a row, cut to `limit` tokens; drops it where no label is left. text: see `texts`."""
        size = len(ids)
        self.longest = max(self.longest, size)
        whole = labels
        if size > limit:
            self.truncated += 1
            ids, labels = ids[:limit], labels[:limit]
        targets = len(labels) - labels.count(IGNORED)
        if not targets:
            self.dropped += 1
            self.masked_prompts += whole.count(IGNORED) < size
            return
        self.input_ids.extend(ids)
        self.labels.extend(labels)
        self.ends.append(len(self.input_ids))
        self.rows += 1
        if text:
            self.texts.append(text)
        self.begun_twice += self.begin is not None and ids[:2] == [self.begin, self.begin]
        self.tokens += len(ids)
        self.label_tokens += targets - (labels[0] != IGNORED)
        self.highest = max(self.highest, max(ids))
        self.longest_kept = max(self.longest_kept, len(ids))
        if self.full is not None and len(self.input_ids) >= _HELD:
            self.hand_over()

    def hand_over(self) -> None:
        """Gives the rows that are held to `full`, if there is one, and forgets them."""
        if self.full is not None and self.ends:
            self.full(self)
            self.input_ids, self.labels, self.ends = array("i"), array("i"), array("q")
            self.texts = []
