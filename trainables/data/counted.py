"""What is counted while each row is looked at once: rows that are equal, and columns that are not read."""

from __future__ import annotations

from collections import Counter

from trainables.data.formats import Format
from trainables.data.rows import Row

EXAMPLES = 3
"""Rows that are named for a finding."""


class Repeats:
    """Counts rows that are equal to an earlier one."""

    def __init__(self) -> None:
        self._first_of: dict[int, int] = {}
        self.count = 0
        """How many there are."""
        self.examples: list[tuple[int, int]] = []
        """The index of each of the first few, and that of the first row that it is equal to."""

    def add(self, key: int, index: int) -> bool:
        """Adds a row by a number that equal rows share; says whether it is equal to an earlier one."""
        first = self._first_of.setdefault(key, index)
        if first == index:
            return False
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((index, first))
        return True


class Unused:
    """Counts rows with columns that are not read and hold something."""

    def __init__(self, fmt: Format) -> None:
        self._used = fmt.used() | {"attention_mask"}
        self.counts: Counter[str] = Counter()
        """How many rows have each of the columns, in the order in which they were found."""
        self.rows, self.first = 0, 0
        """How many rows have one, and the index of the first."""

    def add(self, row: Row, index: int) -> None:
        """Adds a row as it was read."""
        # `row.keys() - used` would have another order each time
        names = [name for name, value in row.items() if name not in self._used and value not in (None, "", [])]
        if names:
            self.first = self.first if self.rows else index
            self.rows += 1
            self.counts.update(names)
