"""Finds out which of TRL's formats the rows have, and checks that every row has it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from trainables.data.reading import Row, Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

Name = Literal["messages", "prompt-completion", "text"]

_ALIASES = {
    "prompt": ("instruction", "input", "question", "query", "source", "context", "user", "problem"),
    "completion": ("output", "response", "answer", "target", "assistant", "solution", "chosen", "label"),
    "messages": ("conversation", "conversations", "dialog", "dialogue", "chat", "turns"),
    "text": ("content", "document", "body", "passage", "code"),
}


@dataclass(frozen=True)
class Format:
    """The format of rows. A chat template turns lists of messages into text."""

    name: Name
    """TRL's name."""
    conversational: bool
    """Whether texts are lists of messages."""

    def __str__(self) -> str:
        return f"conversational {self.name}" if self.conversational and self.name != "messages" else self.name


def detect(rows: Rows, data: DataSettings) -> Format:
    """The format of the rows: by the columns of the first row, or the one that the user named. Raises InputError."""
    first = rows.rows[0]
    columns = {"messages": ("messages",), "prompt-completion": ("prompt", "completion"), "text": (data.text_field,)}
    given = set(first) | ({"messages"} if "conversations" in first else set())
    order: tuple[Name, ...] = ("prompt-completion", "messages", "text")
    possible = [name for name in order if given >= set(columns[name])]
    wanted = data.format
    if wanted != "auto":
        possible = [name for name in possible if name == wanted]
    if not possible:
        raise _misnamed(rows, data, wanted)
    name = possible[0]
    value = first["prompt"] if name == "prompt-completion" else None
    return Format(name, name == "messages" or isinstance(value, list))


def normalize(rows: Rows, fmt: Format, data: DataSettings) -> list[Row]:
    """The rows with the format's columns only; `from` and `value` of a message become `role` and `content`.

    Raises InputError for a row that is not of the format.
    """
    keep = ("tools", "chat_template_kwargs")
    result = []
    for index, row in enumerate(rows.rows):
        extra = {key: row[key] for key in keep if row.get(key) is not None} if fmt.conversational else {}
        _writable(extra, rows, index)
        if fmt.name == "messages":
            key = "messages" if "messages" in row else "conversations"
            result.append({"messages": _messages(row, key, rows, index), **extra})
        elif fmt.name == "text":
            result.append({"text": _text(row, data.text_field, rows, index)})
        elif fmt.conversational:
            both = {key: _messages(row, key, rows, index) for key in ("prompt", "completion")}
            result.append({**both, **extra})
        else:
            result.append({key: _text(row, key, rows, index) for key in ("prompt", "completion")})
    return result


def _text(row: Row, key: str, rows: Rows, index: int) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise InputError(_got(row, key), where=rows.where(index), expected=f"{key!r}: a text, as in the first row")
    _writable(value, rows, index)
    return value


def _messages(row: Row, key: str, rows: Rows, index: int) -> list[dict[str, Any]]:
    expected = f'{key!r}: a list of {{"role": ..., "content": ...}}'
    turns = row.get(key)
    if not isinstance(turns, list) or not turns:
        raise InputError(_got(row, key), where=rows.where(index), expected=expected)
    result = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise InputError(f"a message that is {_shown(turn)}", where=rows.where(index), expected=expected)
        # Arrow tables give every message the columns of all others, filled with None; templates test for presence
        message = {name: value for name, value in turn.items() if value is not None}
        if "from" in message:
            message["role"] = message.pop("from")
        if "value" in message:
            message["content"] = message.pop("value")
        if "role" not in message or not ("content" in message or "tool_calls" in message):
            raise InputError(
                f"a message with {', '.join(map(repr, turn)) or 'nothing'}", where=rows.where(index), expected=expected
            )
        _writable(message, rows, index)
        result.append(message)
    return result


def _writable(value: Any, rows: Rows, index: int) -> None:
    """Raises InputError for text with half a surrogate pair: JSON may have one as an escape, and no tokenizer takes
    it."""
    pending = [value]  # and not by recursion: a row may be nested as deeply as JSON is read
    while pending:
        found = pending.pop()
        if isinstance(found, str):
            if not found.isascii() and any("\ud800" <= c <= "\udfff" for c in found):
                broken = next(c for c in found if "\ud800" <= c <= "\udfff")
                raise InputError(f"half a character: \\u{ord(broken):04x} stands alone", where=rows.where(index),
                                 expected="text in Unicode; characters beyond \\uffff take two escapes")  # fmt: skip
        elif isinstance(found, dict):
            pending += [*found, *found.values()]
        elif isinstance(found, list):
            pending += found


def _got(row: Row, key: str) -> str:
    if key not in row:
        return f"no {key!r}: the row has {', '.join(map(repr, row)) or 'nothing'}"
    value = row[key]
    return f"{key!r} is empty" if value in (None, [], "") else f"{key!r} is {_shown(value)}"


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return "nested too deeply"


def _misnamed(rows: Rows, data: DataSettings, wanted: str) -> InputError:
    formats = {
        "messages": "'messages'",
        "prompt-completion": "'prompt' and 'completion'",
        "text": repr(data.text_field),
    }
    expected = " or ".join(formats.values()) if wanted == "auto" else formats[wanted]
    got = list(rows.rows[0])
    remedy = "; ".join(f"rename {old!r} to {new!r}" for old, new in _renames(got, wanted))
    if not remedy and wanted in ("auto", "text") and len(got) == 1:
        remedy = f"set data.text_field to {got[0]!r} if it holds the text"
    return InputError(
        f"the columns are {', '.join(map(repr, got)) or 'none'}",
        where=rows.where(0),
        expected=f"{expected} (TRL's formats messages, prompt-completion, text)",
        remedy=remedy,
    )


def _renames(columns: Iterable[str], wanted: str) -> list[tuple[str, str]]:
    """Pairs of a misnamed column and the right name that is nearest; a name that is taken is not given twice."""
    targets = {"messages": ["messages"], "prompt-completion": ["prompt", "completion"], "text": ["text"]}
    names = targets.get(wanted, list(_ALIASES))
    taken = set(columns) & set(names)
    result = []
    for column in columns:
        if column in taken:
            continue
        low = column.lower()
        near = difflib.get_close_matches(low, names, n=1, cutoff=0.7)
        aliased = [name for name in names if low in _ALIASES[name]]
        for name in (near or aliased)[:1]:
            if name not in taken:
                taken.add(name)
                result.append((column, name))
    return result
