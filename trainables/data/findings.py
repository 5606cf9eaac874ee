"""What is found out about rows before anything is learned from them, as facts and as sentences."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tuner.contract import Tell

Kind = Literal["read_as", "empty", "malformed", "duplicate", "unused_columns", "unwritten_turns", "unlearned_turns",
               "shared_rows", "split", "source"]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was found, counted, with an example."""

    kind: Kind
    """What kind of thing it is."""
    text: str
    """A sentence about it, without the example."""
    count: int = 0
    """How many rows it is about."""
    total: int = 0
    """Of how many rows."""
    where: str = ""
    """The place of an example."""
    example: str = ""
    """The example, cut."""
    rows: str = ""
    """Which rows: "train" or "validation"; "" where it is about both."""

    def __str__(self) -> str:
        shown = ": ".join(filter(None, (self.where, self.example)))
        return f"{self.text} ({shown})" if shown else self.text


def shown(value: object, width: int = 60) -> str:
    """A value in a message, cut to `width` characters."""
    try:
        text = f"{value!r:.{width + 1}}"
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= width else text[: width - 1] + "…"


def listed(names: object, most: int = 12) -> str:
    """Names in quotes, with commas; a file may have 100,000 columns."""
    all_names = [str(name) for name in names]  # type: ignore[attr-defined]
    told = ", ".join(map(repr, (shown_name(name) for name in all_names[:most])))
    more = len(all_names) - most
    return f"{told} and {more:,} more" if more > 0 else told


def shown_name(name: str, width: int = 60) -> str:
    """A column's name, cut."""
    return name if len(name) <= width else name[: width - 1] + "…"


_EVERY_S = 0.1


def counting(tell: Tell, what: str, total: int) -> Callable[[int], None]:
    """Gives what tells "what: 12,000 of 318,000" ten times a second, for a number of rows that is done."""
    due = 0.0

    def count(done: int) -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            due = now + _EVERY_S
            tell(f"{what}: {done:,} of {total:,}")

    return count
