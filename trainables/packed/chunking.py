"""A step's rows in as many passes through the base as memory takes.

Rows are independent, and gradients and losses are sums over them. So a step that finds no memory is taken again in
smaller passes, and nobody's trial is lost or changed: fewer slots a pass first, then fewer rows of a slot, and where a
single row has no room its layers' activations are computed twice.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from trainables.out_of_memory import is_out_of_memory
from trainables.packed.batches import Part
from trainables.packed.rows import Indices, Rows


@dataclass(frozen=True)
class Piece:
    """Rows of a slot in one pass. part: the place, in the step's list, of the part that they belong to."""

    part: int
    slot: int
    rows: Indices


Pieces = list[Piece]


class Room:
    """What has been found out about the memory of passes: the tokens that they may have, and whether activations are
    kept. It holds for all that come later.

    together: tokens of a pass of several parts at most, None without a limit. recomputes: whether activations can be
    computed twice.
    """

    def __init__(self, together: int | None = None, *, recomputes: bool = False) -> None:
        self.together = together
        self.apart: int | None = None
        """Tokens of a part beyond which it goes in several passes."""
        self.recompute = False
        self.shrunk = False
        self._recomputes = recomputes
        self._rigid = False

    def run(self, parts: Sequence[Part], rows: Rows, one: Callable[[Pieces], None]) -> Pieces:
        """Runs `one` for every pass; gives the pieces that found no memory, or none where all did."""
        for pieces in divided(parts, rows, self.together, self.apart):
            try:
                one(pieces)
            except (MemoryError, RuntimeError) as error:
                if self._rigid or not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
                return pieces
        return []

    def shrink(self, pieces: Pieces, rows: Rows) -> bool:
        """Makes passes smaller than `pieces`, which had no memory. False where they are as small as can be."""
        sizes = [rows.tokens(piece.rows) for piece in pieces]
        if len(pieces) > 1:
            self.together = max(sum(sizes) // 2, *sizes)  # no part is cut as long as passes have several
        elif len(pieces[0].rows) > 1:
            self.together = self.apart = sizes[0] // 2
        elif self._recomputes and not self.recompute:
            self.recompute, self.together, self.apart = True, None, None
        else:
            return False
        self.shrunk = True
        logging.getLogger(__name__).warning("out of memory: %s", self)
        return True

    @contextmanager
    def rigid(self) -> Iterator[None]:
        """Meanwhile what finds no memory raises, so that it can be found out what fits."""
        self._rigid = True
        try:
            yield
        finally:
            self._rigid = False

    def __str__(self) -> str:
        told = f"a pass has {self.together} tokens at most" if self.together else "a pass has all rows of a step"
        return told + (", activations are computed twice" if self.recompute else "")


def divided(parts: Sequence[Part], rows: Rows, together: int | None, apart: int | None) -> Iterator[Pieces]:
    """The parts in passes: several make at most `together` tokens, and one of more than `apart` is cut between rows.

    Pieces of one slot stand together."""
    passing: Pieces = []
    filled = 0
    for piece in _pieces(parts, rows, apart):
        more = rows.tokens(piece.rows)
        if passing and together is not None and filled + more > together:
            yield sorted(passing, key=lambda piece: piece.slot)
            passing, filled = [], 0
        passing.append(piece)
        filled += more
    if passing:
        yield sorted(passing, key=lambda piece: piece.slot)


def _pieces(parts: Sequence[Part], rows: Rows, apart: int | None) -> Iterator[Piece]:
    for number, (slot, indices) in enumerate(parts):
        begin, filled = 0, 0
        if apart is not None:
            for at, length in enumerate(rows.lengths(indices).tolist()):
                if at > begin and filled + length > apart:
                    yield Piece(number, slot, indices[begin:at])
                    begin, filled = at, 0
                filled += length
        yield Piece(number, slot, indices[begin:])
