"""Divides a step's rows into passes through the base that fit into memory.

Rows are independent, and gradients and losses are sums over them. So a step that runs out of memory is taken again in
smaller passes, and no trial is lost or changed: first fewer slots a pass, then fewer rows of a slot, and where a single
row does not fit, its layers recompute their activations in the backward.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from trainables.out_of_memory import is_out_of_memory
from trainables.packed.batches import SlotRows
from trainables.packed.rows import FlatRows, Indices


@dataclass(frozen=True)
class Chunk:
    """Rows of one part, all in one pass."""

    part: int
    """The index, in the step's list, of the part that they belong to."""
    slot: int
    """The slot whose rows they are."""
    rows: Indices
    """[rows] int64."""


Chunks = list[Chunk]
"""The rows of one pass."""


class Chunking:
    """The size of passes: limits that shrink when memory runs out, and hold from then on."""

    def __init__(self, max_tokens: int | None = None, *, recomputes: bool = False) -> None:
        """max_tokens: the first limit. recomputes: whether the base can recompute activations in the backward."""
        self.max_tokens = max_tokens
        """Most tokens of a pass with several chunks; None: no limit."""
        self.max_part_tokens: int | None = None
        """Tokens of a part beyond which it is divided among passes; None: no limit."""
        self.recompute = False
        """Whether activations are recomputed in the backward."""
        self.shrunk = False
        """Whether a pass has run out of memory before."""
        self._recomputes = recomputes
        self._strict = False

    def run(self, parts: Sequence[SlotRows], rows: FlatRows, take: Callable[[Chunks], None]) -> Chunks:
        """Calls `take` with each pass until one runs out of memory. Gives that pass, or an empty one where none did."""
        for chunks in divided(parts, rows, self.max_tokens, self.max_part_tokens):
            try:
                take(chunks)
            except (MemoryError, RuntimeError) as error:
                if self._strict or not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
                return chunks
        return []

    def shrink(self, chunks: Chunks, rows: FlatRows) -> bool:
        """Makes passes smaller than `chunks`, which ran out of memory. False where they cannot be smaller."""
        sizes = [rows.tokens(chunk.rows) for chunk in chunks]
        if len(chunks) > 1:
            self.max_tokens = max(sum(sizes) // 2, *sizes)  # no chunk is divided: the largest fits
        elif len(chunks[0].rows) > 1:
            self.max_tokens = self.max_part_tokens = sizes[0] // 2
        elif self._recomputes and not self.recompute:
            self.recompute, self.max_tokens, self.max_part_tokens = True, None, None
        else:
            return False
        self.shrunk = True
        logging.getLogger(__name__).warning("out of memory: %s", self)
        return True

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Within it a pass that runs out of memory raises, so that a caller can measure what fits into memory."""
        self._strict = True
        try:
            yield
        finally:
            self._strict = False

    def __str__(self) -> str:
        told = f"a pass has {self.max_tokens} tokens at most" if self.max_tokens else "a pass has all rows of a step"
        return told + (", activations are recomputed" if self.recompute else "")


def divided(
    parts: Sequence[SlotRows], rows: FlatRows, max_tokens: int | None, max_part_tokens: int | None
) -> Iterator[Chunks]:
    """The parts as passes. A pass with several chunks has at most `max_tokens` tokens; a part of more than
    `max_part_tokens` tokens is divided between rows. Within a pass, chunks of one slot are consecutive."""
    passing: Chunks = []
    filled = 0
    for chunk in _chunks(parts, rows, max_part_tokens):
        more = rows.tokens(chunk.rows)
        if passing and max_tokens is not None and filled + more > max_tokens:
            yield sorted(passing, key=lambda chunk: chunk.slot)
            passing, filled = [], 0
        passing.append(chunk)
        filled += more
    if passing:
        yield sorted(passing, key=lambda chunk: chunk.slot)


def _chunks(parts: Sequence[SlotRows], rows: FlatRows, max_part_tokens: int | None) -> Iterator[Chunk]:
    for part, (slot, indices) in enumerate(parts):
        begin, filled = 0, 0
        if max_part_tokens is not None:
            for at, length in enumerate(rows.lengths(indices).tolist()):
                if at > begin and filled + length > max_part_tokens:
                    yield Chunk(part, slot, indices[begin:at])
                    begin, filled = at, 0
                filled += length
        yield Chunk(part, slot, indices[begin:])
