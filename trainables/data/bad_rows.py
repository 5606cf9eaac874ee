"""Rows that cannot be learned from: counted by reason, left out or refused as the settings say."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from trainables.data.findings import Finding
from trainables.data.messages import BadRow
from trainables.data.rows import Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

_NAMED = 8
"""Rows that are named in a finding."""


@dataclass
class _Bad:
    """Rows that cannot be learned from for one reason."""

    what: str
    expected: str
    kind: str
    where: str
    count: int = 0


class BadRows:
    """Rows of a set that cannot be learned from."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._groups: dict[tuple[str, str], _Bad] = {}
        self._indices = array("q")

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def where(self) -> str:
        """The place of the first."""
        return self._rows.where(self._indices[0]) if self._indices else self._rows.source

    def add(self, found: BadRow, index: int) -> None:
        """Counts the row `index`."""
        group = self._groups.setdefault(
            (found.kind, found.what), _Bad(found.what, found.expected, found.kind, self._rows.where(index))
        )
        group.count += 1
        self._indices.append(index)

    def findings(self, data: DataSettings, good: int, *, every: bool = False) -> Iterator[Finding]:
        """A finding for each kind of row that is left out. Raises InputError for one that is refused.

        good: how many rows are not bad. every: whether the finding names more rows than the first.
        """
        groups = sorted(self._groups.values(), key=lambda group: -group.count)
        total = len(self._rows)
        for kind, refused in (("malformed", data.on_bad_row != "drop"), ("empty", data.on_bad_row == "refuse")):
            of_kind = [group for group in groups if group.kind == kind]
            count = sum(group.count for group in of_kind)
            if not count:
                continue
            if refused or not good:
                first = of_kind[0]
                raise InputError(first.what + _and_more(count, total), where=first.where, expected=first.expected,
                                 remedy=_to_leave_out(kind, good))  # fmt: skip
            reasons = "; ".join(f"{g.what}{f' in {g.count:,}' if len(of_kind) > 1 else ''}" for g in of_kind[:3])
            told = f"{count:,} of {total:,} rows are {kind} and are left out: {reasons}"
            where = self._named() if every else of_kind[0].where
            yield Finding(kind, told, count, total, where)  # type: ignore[arg-type]

    def _named(self) -> str:
        named = ", ".join(self._rows.where(index) for index in self._indices[:_NAMED])
        more = len(self._indices) - _NAMED
        return f"{named} and {more:,} more" if more > 0 else named


def _and_more(count: int, total: int) -> str:
    return "" if count == 1 else f" (and {count - 1:,} more of {total:,} rows cannot be used)"


def _to_leave_out(kind: str, good: int) -> str:
    if not good:
        return ""
    return (
        f"set data.on_bad_row to {'drop' if kind == 'malformed' else 'drop_empty'} to leave such rows out, or mend them"
    )
