"""A set of rows that is looked at: each row once, and its content forgotten again."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.data import formats, look_rows, splitting
from trainables.data.counted import EXAMPLES, Repeats, Unused
from trainables.data.findings import counting
from trainables.data.formats import Format
from trainables.data.messages import BadRow
from trainables.data.review import Seen, Turns
from trainables.data.rows import Row, Rows
from trainables.data.shaping import Shaper, key_of
from trainables.settings import DataSettings
from tuner.contract import Finding, InputError, Tell


class Shaped(Mapping[int, Row]):
    """Rows in TRL's format by index, each made when it is asked for."""

    def __init__(self, rows: Rows, fmt: Format, data: DataSettings) -> None:
        self._rows, self._shaper = rows, Shaper(fmt, data)
        self.indices = array("q")
        """Those of the rows that are in the format, ascending."""

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __getitem__(self, index: int) -> Row:
        """The row with an index of `rows`. Raises BadRow."""
        return self.made(index, self._rows.rows[index])

    def made(self, index: int, row: Row) -> Row:
        """A row that is at hand in the format. Raises BadRow."""
        return self._shaper.shape(row, self._rows.is_arrow(index))


@dataclass
class LookedSet:
    """The rows of one set, with what is found out about them."""

    name: str
    rows: Rows
    total: int
    findings: list[Finding] = field(default_factory=list)
    shaped: Mapping[int, Row] = field(default_factory=dict)
    """By index: the rows with the format's columns."""
    keys: array[int] = field(default_factory=lambda: array("q"))
    """Of each of them, a number that equal rows share."""
    sizes: array[int] = field(default_factory=lambda: array("q"))
    """Of each of them, its characters."""
    turns: Turns = field(default_factory=Turns)
    """Of conversational rows, what their turns have."""
    read_as: tuple[str, ...] = ()
    """How rows that are not TRL's own are read."""
    sampled: str = ""
    refused: InputError | None = None

    def place(self, index: int) -> str:
        """Where a row is in its file, without the file."""
        return look_rows.place(self.rows, index)

    def add(self, kind: Any, what: str, indices: Sequence[int], said: Callable[[int], str] | None = None) -> None:
        """Adds a finding about these rows, if there are any. said: what is told of one, behind its place."""
        if indices:
            told = [f"{self.place(i)}{f': {said(i)}' if said else ''}" for i in indices[:EXAMPLES]]
            self.findings.append(Finding(kind, what, len(indices), tuple(told)))

    def refuse(self, indices: Sequence[int], error_of: Callable[[int], InputError]) -> None:
        """Adds a finding about rows that a search refuses. error_of: the refusal of one of the first three."""
        if indices:
            self.add("refused", "that a search refuses", indices, lambda i: error_of(i).what)
            self.refused = self.refused or error_of(indices[0])


def sets(
    train: Rows, total: int, sampled: str, data: DataSettings, validation: tuple[Rows | None, int, str]
) -> list[LookedSet]:
    """The sets as the preparation splits them. Of a sampled file nothing is split off: the sample has the rows of
    both."""
    given, given_total, given_sampled = validation
    if sampled and given is None:
        return [LookedSet("train", train, total, sampled=f"{sampled}, the rows for validation among them")]
    read = len(train.rows)
    train, held_out = splitting.split(train, given, data)
    if given is None:
        made = [LookedSet("train", train, len(train.rows)), LookedSet("validation", held_out, len(held_out.rows))]
        left = read - len(train.rows) - len(held_out.rows)
    else:
        made = [LookedSet("train", train, total if sampled else len(train.rows), sampled=sampled)]
        rows = given_total if given_sampled else len(held_out.rows)
        made.append(LookedSet("validation", held_out, rows, sampled=given_sampled))
        left = read - len(train.rows) + len(given.rows) - len(held_out.rows)
    if left:
        what = "not drawn (data.max_train_rows, data.max_validation_rows)"
        made[0].findings.append(Finding("left out", what, left))
    return made


def examine(found: LookedSet, fmt: Format, data: DataSettings, tell: Tell) -> None:
    """Brings the rows into the format, one by one where one is refused; finds equal and empty rows and unused
    columns."""
    rows = found.rows
    own = formats.detect(rows, data)
    if own != fmt:
        other = InputError(f"the {found.name} rows are {own}, the training rows {fmt}", where=rows.source,
                           expected=f"{fmt} rows: the loss must mean the same in both")  # fmt: skip
        found.refuse([0], lambda _: other)
        return
    found.shaped = shaped = Shaped(rows, fmt, data)
    refused, empty = array("q"), array("q")
    errors: dict[int, InputError] = {}
    repeats, seen = Repeats(), Seen(fmt, data)
    count = counting(tell, f"looking at the {found.name} rows", len(rows))
    for index, row in enumerate(rows.rows):
        count(index)
        seen.unused.add(row, index)
        try:
            made = shaped.made(index, row)
        except BadRow as bad:
            refused.append(index)
            if len(errors) < EXAMPLES:
                errors[index] = InputError(bad.what, where=rows.where(index), expected=bad.expected)
            continue
        shaped.indices.append(index)
        key = key_of(made)
        found.keys.append(key)
        found.sizes.append(len(str(made)))
        seen.add(row, made, index)
        if _is_empty(made):
            empty.append(index)
        repeats.add(key, index)
    found.turns, found.read_as = seen.turns, tuple(seen.read_as())
    found.refuse(refused, errors.__getitem__)
    for _, words, number, first in seen.counted():
        found.findings.append(Finding("told", f"with {words}", number, (f"first in {found.place(first)}",)))
    _unused(found, seen.unused)
    found.add("told", "with an empty text to learn", empty)
    _equal(found, repeats)


def _unused(found: LookedSet, unused: Unused) -> None:
    """Adds a finding about columns that are not read, if there are any."""
    if not unused.rows:
        return
    most = [f"{name!r} in {number:,}" for name, number in unused.counts.most_common(8)]
    more = len(unused.counts) - len(most)
    told = (*most, *([f"{more:,} more columns"] if more > 0 else []))
    examples = (f"first in {found.place(unused.first)}: {', '.join(told)}",)
    found.findings.append(Finding("told", "with columns that are not used", unused.rows, examples))


def _equal(found: LookedSet, repeats: Repeats) -> None:
    """Adds a finding about rows that are equal to earlier ones, if there are any."""
    if repeats.count:
        told = tuple(f"{found.place(index)}: as {found.place(first)}" for index, first in repeats.examples)
        found.findings.append(Finding("told", "equal to an earlier row", repeats.count, told))


def _is_empty(row: Row) -> bool:
    """Whether what is learned of a row is empty: its text, its completion, or the last turn."""
    text = row.get("text", row.get("completion", row.get("messages")))
    if isinstance(text, list):
        last = text[-1] if text else {}
        return not last.get("tool_calls") and not str(last.get("content") or "").strip()
    return isinstance(text, str) and not text.strip()


def shared(made: Sequence[LookedSet]) -> Iterator[Finding]:
    """A finding about rows that training and validation share: their loss is that of rows that were learned."""
    if len(made) < 2:
        return
    train, validation = made
    known = dict(zip(reversed(train.keys), reversed(list(train.shaped)), strict=True))
    same = [(i, known[key]) for i, key in zip(validation.shaped, validation.keys, strict=True) if key in known]
    if same:
        told = tuple(f"{validation.place(i)}: as {train.place(j)} of train" for i, j in same[:EXAMPLES])
        remedy = "take them out of one of the sets: the loss on them says what was learned by heart"
        yield Finding("told", "that validation shares with training", len(same), told, remedy)
