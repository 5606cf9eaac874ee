"""What a program shows of a base before anything trains on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of a look at a base."""

    label: str
    """A word in the left margin ("parts")."""
    columns: tuple[str, ...]
    """Headings. The first column is text, the others are figures."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, as many in each row as there are headings."""
    below: str = ""
    """A sentence below the rows; "" for none."""


@dataclass(frozen=True)
class BaseLook:
    """A base: what it is, what can be trained of it, and what that takes."""

    facts: Mapping[str, str]
    """Sentences by a word for each ("base", "packs")."""
    tables: tuple[Table, ...] = ()
    """Tables, in the order in which they are shown."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Texts that are shown line by line, by what they are."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The same as figures, for --json."""

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> BaseLook:
        """Reads what came from another process as JSON."""
        tables = [
            Table(one["label"], tuple(one["columns"]), tuple(map(tuple, one["rows"])), one["below"])
            for one in given["tables"]
        ]
        return cls(given["facts"], tuple(tables), given["texts"], tuple(given["notes"]), given["data"])
