"""Rows as they were read, and their places in the source.

Rows are decoded when they are asked for: 318,000 rows of 200 MB take 205 MB as text, and 0.6 to 1.5 GB as dicts.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from tuner.contract import InputError

Row = dict[str, Any]
_BLOCK = 1024
"""Rows of an Arrow table that are decoded at a time."""


class _Sequence(Sequence[Row]):
    """A sequence of rows without slices; equal to any other with the same rows."""

    def _row(self, index: int) -> Row:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._row(index % len(self))

    def __iter__(self) -> Iterator[Row]:
        return (self._row(index) for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None  # type: ignore[assignment]


class JsonRows(_Sequence):
    """Rows that are JSON objects in one block of UTF-8."""

    def __init__(self, text: bytes, begins: array[int], ends: array[int]) -> None:
        """begins, ends: [rows] int64, bytes of `text`."""
        self._text, self._begins, self._ends = text, begins, ends

    def __len__(self) -> int:
        return len(self._begins)

    def _row(self, index: int) -> Row:
        row: Row = json.loads(self._text[self._begins[index] : self._ends[index]].decode())
        return row


class Records(_Sequence):
    """Rows of a table with a header, as text."""

    def __init__(self, header: Sequence[str], records: Sequence[Sequence[str]]) -> None:
        self._header, self._records = header, records

    def __len__(self) -> int:
        return len(self._records)

    def _row(self, index: int) -> Row:
        return dict(zip(self._header, self._records[index], strict=True))


class ArrowRows(_Sequence):
    """Rows of an Arrow table, or of a `datasets.Dataset` in the format "arrow"."""

    def __init__(self, table: Any, source: str) -> None:
        self._table, self._source = table, source
        self._block = -1
        self._decoded: list[Row] = []

    def __len__(self) -> int:
        return len(self._table)

    def _row(self, index: int) -> Row:
        block, place = divmod(index, _BLOCK)
        if block != self._block:
            self._decoded, self._block = self._decode(block * _BLOCK), block
        return dict(self._decoded[place])

    def _decode(self, begin: int) -> list[Row]:
        import pyarrow

        found = self._table
        size = min(_BLOCK, len(found) - begin)
        part = found.slice(begin, size) if isinstance(found, pyarrow.Table) else found[begin : begin + size]
        try:
            return list(part.to_pylist())
        except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
            raise InputError(f"cannot be decoded ({error})", where=f"{self._source}, row {begin + 1} and the following",
                             expected="columns of text, numbers and lists") from None  # fmt: skip


class _Chosen(_Sequence):
    def __init__(self, rows: Sequence[Row], indices: Sequence[int]) -> None:
        self._rows, self._indices = rows, indices

    def __len__(self) -> int:
        return len(self._indices)

    def _row(self, index: int) -> Row:
        return self._rows[self._indices[index]]


class _WithPaths(_Sequence):
    """Rows with further columns, each of which lies within another and has its path as its name."""

    def __init__(self, rows: Sequence[Row], paths: Sequence[str]) -> None:
        self._rows, self._paths = rows, [(path, path.split(".")) for path in paths]

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, index: int) -> Row:
        row = self._rows[index]
        found = {path: value for path, keys in self._paths if (value := within(row, keys)) is not None}
        outer = {keys[0] for _, keys in self._paths}
        return {name: value for name, value in row.items() if name not in outer} | found


def within(row: Row, keys: Sequence[str]) -> Any:
    """The value at a path in a row: keys of objects within objects; a list of one stands for what it holds."""
    value: Any = row
    for key in keys:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        value = value.get(key) if isinstance(value, dict) else None
    return value[0] if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], dict) else value


class _Joined(_Sequence):
    def __init__(self, parts: Sequence[Sequence[Row]]) -> None:
        self._parts = parts
        self._ends = array("q")
        for part in parts:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(part))

    def __len__(self) -> int:
        return self._ends[-1]

    def _row(self, index: int) -> Row:
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


@dataclass(frozen=True)
class Part:
    """A file, or a split, that rows come from."""

    source: str
    """Its path or hub id."""
    rows: int
    """How many rows it has."""
    lines: Sequence[int] = ()
    """[rows] the line of each row in a text file, counted from 1; empty where rows are counted."""
    split: str = ""
    """The split in which rows are counted; "" where the source has no splits."""
    is_arrow: bool = False
    """Whether its rows have a schema, which gives every message and every call the keys of all others."""

    def where(self, index: int) -> str:
        """The place of its row `index`."""
        if self.lines:
            return f"{self.source}:{self.lines[index]}"
        return f"{self.source}{f' ({self.split})' if self.split else ''}, row {index + 1}"


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, with their places, which stay the same when rows are split off or drawn."""

    source: str
    """The path, the pattern or the hub id, as the settings have it."""
    rows: Sequence[Row]
    """Each row by column."""
    parts: tuple[Part, ...] = ()
    """The files or splits that the rows come from, in order; empty: `source` is the only one."""
    indices: Sequence[int] = ()
    """Of each row, its number in all `parts` together, counted from 0; empty where all rows are here in their order."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What is to be told of how they were read."""

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """The place of a row, for a message."""
        part, place = self._place(index)
        return part.where(place)

    def source_of(self, index: int) -> str:
        """The file, folder or hub id that a row comes from."""
        return self._place(index)[0].source

    def is_arrow(self, index: int) -> bool:
        """Whether a row has a schema (see `Part.is_arrow`)."""
        return self._place(index)[0].is_arrow

    def with_paths(self, names: Iterable[str]) -> Rows:
        """The rows with those columns of `names` that are paths into other columns: `answers.text`."""
        first = self.rows[0] if self.rows else {}
        paths = [name for name in names if "." in name and name not in first and name.split(".")[0] in first]
        return replace(self, rows=_WithPaths(self.rows, paths)) if paths else self

    def _place(self, index: int) -> tuple[Part, int]:
        place = self.indices[index] if self.indices else index
        for part in self.parts:
            if place < part.rows:
                return part, place
            place -= part.rows
        return Part(self.source, len(self.rows)), place

    def select(self, indices: Sequence[int]) -> Rows:
        """Some of the rows, in the order of `indices`."""
        known = self.indices or range(len(self.rows))
        chosen = array("q", (known[i] for i in indices))
        return replace(self, rows=_Chosen(self.rows, array("q", indices)), indices=chosen)


def joined(source: str, found: Sequence[Rows]) -> Rows:
    """The rows of several files, none of which has been selected from, one after the other."""
    if len(found) == 1:
        return replace(found[0], source=source)
    parts = tuple(part for rows in found for part in rows.parts)
    remarks = tuple(dict.fromkeys(remark for rows in found for remark in rows.remarks))
    return Rows(source, _Joined([rows.rows for rows in found]), parts, remarks=remarks)
