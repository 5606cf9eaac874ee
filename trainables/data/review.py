"""Looks at every row once before any is tokenized: what is left out, what is there twice, what is not read."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from trainables.data.advice import yaml_name
from trainables.data.bad_rows import BadRows
from trainables.data.counted import Repeats, Unused
from trainables.data.findings import Finding, Kind, counting, listed, shown
from trainables.data.formats import ALPACA, TURNS, Format
from trainables.data.messages import REASONING, TEMPLATE_ROLES, TURN_KEYS, BadRow, turns_in
from trainables.data.rows import Row, Rows
from trainables.data.shaping import LEARNED, Shaper, key_of, turn_keys
from trainables.settings import DataSettings
from tuner.contract import InputError, Tell, silent

_SHAPES = 1000
"""Orders of turns, roles and keys of turns that are remembered."""

Shape = tuple[tuple[str, tuple[str, ...]], ...]
"""The turns of a row: each one's role, and what it has beside its content: "tool_calls", "arguments" where theirs are
text, "reasoning"."""


@dataclass
class Turns:
    """What the turns of conversational rows have. A count of rows goes with the index of the first of them."""

    shapes: dict[Shape, tuple[int, int]] = field(default_factory=dict)
    """How many rows have these turns."""
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """How many rows have a turn with this key, of those that no chat template is sure to read."""

    def add(self, row: Row, index: int) -> Shape:
        """Adds a row in TRL's format; gives its turns."""
        shape = shape_of(row)
        _count(self.shapes, shape, index)
        every = (item for turn in turns_of(row) for item in turn.items())
        for key in dict.fromkeys(key for key, value in every if key not in TURN_KEYS and value not in ("", [], {})):
            _count(self.keys, key, index)
        return shape


def _count(counts: dict[Any, tuple[int, int]], name: Any, index: int) -> None:
    count, first = counts.get(name, (0, index))
    if count or len(counts) < _SHAPES:
        counts[name] = (count + 1, first)


@dataclass(frozen=True)
class Review:
    """What was found out about the rows of a source."""

    rows: Rows
    """Those that are learned from."""
    format: Format
    """Their format."""
    findings: tuple[Finding, ...]
    """What is to be told."""
    keys: array[int]
    """Of each row of the source, by its number in it, a number that equal rows share; 0 for a row that is left out."""
    seen: int
    """How many rows were looked at."""
    turns: Turns = field(default_factory=Turns)
    """Of conversational rows, what their turns have."""


def review(rows: Rows, fmt: Format, data: DataSettings, name: str = "", tell: Tell = silent) -> Review:
    """Looks at every row. Raises InputError for rows that `data.on_bad_row` and `data.on_duplicate` refuse.

    name: "train" or "validation", for what is told. tell: gets how far it is.
    """
    shaper = Shaper(fmt, data)
    good, keys = array("q"), array("q", bytes(8 * (max(rows.indices) + 1 if rows.indices else len(rows))))
    bad = BadRows(rows)
    repeats, seen = Repeats(), Seen(fmt, data)
    count = counting(tell, f"looking at the {name} rows", len(rows))
    for index, row in enumerate(rows.rows):
        count(index)
        try:
            shaped = shaper.shape(row, rows.is_arrow(index) if fmt.conversational else False)
        except BadRow as found:
            bad.add(found, index)
            continue
        key = key_of(shaped)
        if repeats.add(key, index) and data.on_duplicate == "drop":
            continue
        seen.unused.add(row, len(good))
        seen.add(row, shaped, len(good))
        keys[rows.indices[index] if rows.indices else index] = key or 1
        good.append(index)
    findings = list(bad.findings(data, len(good)))
    if repeats.count:
        findings.append(_of_duplicates(repeats, rows, data))
    left = rows if len(good) == len(rows) else rows.select(good)
    findings += seen.findings(left)
    return Review(left, fmt, tuple(replace(f, rows=name) for f in findings), keys, len(rows), seen.turns)


def shaped(rows: Rows, fmt: Format, data: DataSettings) -> Iterator[Row]:
    """The rows of a review, or a part of them, in TRL's format."""
    shaper = Shaper(fmt, data)
    return (shaper.shape(row, rows.is_arrow(index)) for index, row in enumerate(rows.rows))


def shared(
    train: Review, train_rows: Rows, validation: Review, validation_rows: Rows, of_one_source: bool
) -> Finding | None:
    """Validation rows that are training rows too; None where there are none.

    of_one_source: whether the validation rows were split off.
    """
    known = {train.keys[number] for number in _numbers(train_rows)}
    same = [i for i, number in enumerate(_numbers(validation_rows)) if validation.keys[number] in known]
    if not same:
        return None
    total = len(validation_rows)
    which = f"all {total:,} validation rows are training rows"
    if total == 1:
        which = "the only validation row is a training row"
    elif len(same) < total:
        are = "is a training row" if len(same) == 1 else "are training rows"
        which = f"{len(same):,} of {total:,} validation rows {are}"
    remedy = "; data.on_duplicate drop leaves them out" if of_one_source else ""
    told = f"{which} too: a trial that memorizes such rows looks good{remedy}"
    return Finding("shared_rows", told, len(same), total, validation_rows.where(same[0]))


def _numbers(rows: Rows) -> Any:
    return rows.indices or range(len(rows))


def _of_duplicates(repeats: Repeats, rows: Rows, data: DataSettings) -> Finding:
    count, total, (other, one) = repeats.count, len(rows), repeats.examples[0]
    place = f"{rows.where(other)} is {rows.where(one)} again"
    if data.on_duplicate == "refuse":
        raise InputError(f"{count:,} of {total:,} rows are there more than once: {place}", where=rows.where(other),
                         expected="every row once, as data.on_duplicate says",
                         remedy="set data.on_duplicate to drop to learn each once")  # fmt: skip
    done = (
        "and are left out"
        if data.on_duplicate == "drop"
        else "and are learned as often; data.on_duplicate drop leaves them out"
    )
    return Finding("duplicate", f"{count:,} of {total:,} rows repeat another {done}", count, total, place)


class Seen:
    """What is counted over all rows that are learned from."""

    def __init__(self, fmt: Format, data: DataSettings) -> None:
        self._fmt, self._data, self._names = fmt, data, turn_keys(data)
        self.unused = Unused(fmt)
        """The columns that are not read."""
        self._roles: dict[str, str] = {}
        self._count: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self.turns = Turns()
        """See `Review.turns`."""

    def add(self, row: Row, shaped: Row, index: int) -> None:
        """Adds a row, as it was read and in TRL's format."""
        if not self._fmt.conversational:
            return
        in_parts = is_json = False
        for column in (self._fmt.columns.get(key, "") for key in ("messages", "prompt", "completion")):
            turns = turns_in(row.get(column))
            is_json = is_json or turns is not row.get(column)
            for turn in turns if isinstance(turns, list) else ():
                self._role(turn)
                in_parts = in_parts or isinstance(turn.get("content", turn.get("value")), list)
        in_parts = in_parts and not self._fmt.images
        shape = self.turns.add(shaped, index)
        is_silent = not any(role == "assistant" for role, _ in shape)
        for what, holds in (
            ("silent", is_silent),
            ("unlearned", LEARNED in shaped),
            ("parts", in_parts),
            ("json", is_json),
        ):
            if holds:
                self._count[what] += 1
                self._first.setdefault(what, index)

    def _role(self, turn: Any) -> None:
        if not isinstance(turn, dict):
            return
        role = turn.get("role", turn.get("from", turn.get(self._names.role)))
        if isinstance(role, str) and role not in self._roles and len(self._roles) < _SHAPES:
            self._roles[role] = self._names.role_of(role, "from" in turn and "role" not in turn)

    def read_as(self) -> Iterator[str]:
        """How rows that are not TRL's own are read, a sentence each."""
        fmt = self._fmt
        if fmt.layout == "Alpaca" and not self._data.prompt_template:
            how = "instruction and input are the user's turn"
            if "history" in fmt.columns:
                how += (", and 'history' the turns before it, whose answers are learned too; data.columns "
                        "{history: null} leaves them out")  # fmt: skip
            elif not fmt.conversational:
                how = ("instruction and input stand in Alpaca's own prompt; data.prompt_template writes another, "
                       "data.as_chat uses the chat template")  # fmt: skip
            yield f"read as Alpaca's format: {how}"
        if renamed := [f"{theirs} → {ours}" for theirs, ours in self._roles.items() if theirs != ours]:
            yield f"roles are read as the chat template has them: {', '.join(renamed[:8])}"
        if odd := [role for role, ours in self._roles.items() if ours not in TEMPLATE_ROLES]:
            which = f"the role{'' if len(odd) == 1 else 's'} {listed(odd, 8)}"
            says = f"data.roles {{{yaml_name(odd[0])}: assistant}} says what a role stands for"
            yield f"chat templates are not made for {which}: some write it, others leave it out; {says}"
        if system := fmt.columns.get("system"):
            where = "a turn of its own" if fmt.conversational else "the beginning of the prompt"
            yield f"the column {system!r} is read as {where}; data.columns {{system: null}} leaves it out"
        if fmt.layout == "tokenized":
            yield "the rows are tokenized already: neither the tokenizer nor the chat template is used"

    def _other_format(self) -> str:
        """The setting that reads columns which are not used; "" where they have no format of their own."""
        unused = self.unused.counts.keys()
        if self._fmt.name != "messages" and (turns := next((name for name in TURNS if name in unused), "")):
            return f"; data.format messages reads {turns!r}"
        if self._fmt.name == "text" and unused >= set(ALPACA):
            return f"; data.format prompt-completion reads {listed(ALPACA)}"
        return ""

    def counted(self) -> Iterator[tuple[Kind, str, int, int]]:
        """What holds for some rows: its kind, words behind a number of rows, that number, and the first of them."""
        told: dict[str, tuple[Kind, str]] = {
            "silent": ("unlearned_turns", "no turn of the assistant"),
            "unlearned": ("unlearned_turns", "turns with weight 0, which are read and not learned"),
            "parts": ("read_as", "content in parts, whose texts are joined"),
            "json": ("read_as", "their turns as JSON in a text, which is parsed"),
        }
        for what, (kind, words) in told.items():
            if count := self._count[what]:
                yield kind, words, count, self._first[what]

    def findings(self, rows: Rows) -> Iterator[Finding]:
        """What is to be told. rows: those that are learned from."""
        total = len(rows)
        yield from (Finding("read_as", text) for text in self.read_as())
        if unused := self.unused.counts:
            name, index = next(iter(unused)), self.unused.first
            value = shown(rows.rows[index].get(name), 40)
            told = f"columns that are not used: {listed(unused)}{self._other_format()}"
            yield Finding("unused_columns", told, len(unused), 0, rows.where(index), f"{name!r} is {value}")
        for kind, words, count, index in self.counted():
            yield Finding(kind, f"{count:,} of {total:,} rows have {words}", count, total, rows.where(index))


def shape_of(row: Row) -> Shape:
    """The turns of a row in TRL's format."""
    return tuple((str(turn["role"]), tuple(_beside(turn))) for turn in turns_of(row))


def _beside(turn: dict[str, Any]) -> Iterator[str]:
    if turn.get("tool_calls"):
        yield "tool_calls"
        if any(map(text_arguments, turn["tool_calls"])):
            yield "arguments"
    if any(turn.get(key) for key in REASONING):
        yield "reasoning"


def text_arguments(call: Any) -> str:
    """The arguments of a tool call that are JSON in a text; "" where they are none."""
    function = call.get("function", call) if isinstance(call, dict) else None
    found = function.get("arguments") if isinstance(function, dict) else None
    return found if isinstance(found, str) and found.lstrip().startswith("{") and '"' in found else ""


def turns_of(row: Row) -> list[dict[str, Any]]:
    """The messages of a row in TRL's format."""
    turns: list[dict[str, Any]] = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
    return turns
