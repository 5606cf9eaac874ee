"""Measures rows in tokens: their lengths, and what a shorter or a longer `max_length` would cost."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from tuner.contract import AtLength, Bin

_LENGTHS = tuple(2**power for power in range(5, 21))
"""Candidates for max_length: 32 to 1,048,576."""
_SHOWN = 5
"""Candidates that are shown, beside the one of the settings."""
_BARS = 10
_ROWS_OF_A_HISTOGRAM = 8


class Measures:
    """What is summed over rows. limit: max_length of the settings."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lengths = array("q")
        """[rows] tokens."""
        self.learned = 0
        """Learned tokens, beyond `limit` too."""
        self._at = sorted({*_LENGTHS, limit})
        self._cut = [0] * len(self._at)
        self._left_out = [0] * len(self._at)
        self._lost = [0] * len(self._at)

    def add(self, length: int, targets: list[int]) -> None:
        """Adds a row. targets: the ascending positions of its labels. The first token of a row may have a label and is
        never learned, because no token predicts it."""
        self.lengths.append(length)
        learned = len(targets) - (targets[:1] == [0])
        self.learned += learned
        for index, most in enumerate(self._at):
            if length > most:
                self._cut[index] += 1
                self._lost[index] += len(targets) - max(bisect_left(targets, most), len(targets) - learned)
            self._left_out[index] += not targets or targets[0] >= most

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(self.lengths)

    def at(self) -> tuple[AtLength, ...]:
        """The candidates up to the first one that cuts no row, and the one of the settings."""
        longest = max(self.lengths, default=0)
        first_whole = next((most for most in _LENGTHS if most >= longest), _LENGTHS[-1])
        near = [most for most in _LENGTHS if most <= first_whole][-_SHOWN:]
        found = zip(self._at, self._cut, self._left_out, self._lost, strict=True)
        return tuple(AtLength(*row) for row in found if row[0] in (*near, self.limit))

    def quantiles(self) -> dict[str, int]:
        """Lengths by the words that name them."""
        if not self.lengths:
            return {}
        ordered = sorted(self.lengths)
        shares = {"shortest": 0.0, "median": 0.5, "90%": 0.9, "99%": 0.99, "longest": 1.0}
        return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in shares.items()}

    def histogram(self) -> tuple[Bin, ...]:
        """Bars of one width, up to twice the length of 90% of the rows; the last one has all that are longer."""
        if len(self.lengths) < _ROWS_OF_A_HISTOGRAM:
            return ()
        found = self.quantiles()
        end = min(found["longest"], 2 * found["90%"]) + 1
        width = _round(max(1, -(-(end - found["shortest"]) // _BARS)))
        begin = found["shortest"] // width * width
        rows = [0] * -(-(end - begin) // width)
        end = begin + len(rows) * width
        for length in self.lengths:
            if length < end:
                rows[(length - begin) // width] += 1
        bars = [Bin(begin + i * width, begin + (i + 1) * width - 1, number) for i, number in enumerate(rows)]
        longer = sum(length >= end for length in self.lengths)
        return (*bars, *([Bin(end, None, longer)] if longer else []))


def _round(width: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= width:
                return step * scale
        scale *= 10
