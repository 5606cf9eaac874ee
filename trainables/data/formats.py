"""Finds out which of TRL's formats the rows have, and which of their columns hold what."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from trainables.data import advice, image_parts
from trainables.data.messages import is_null, turns_in
from trainables.data.rows import Row, Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

Name = Literal["messages", "prompt-completion", "text", "tokens"]

ALPACA = ("instruction", "output")
"""The columns of Alpaca's format; `input` is the third, and may be empty or missing."""
TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
"""Columns that are read as messages where they hold a list of turns."""
KEEP = ("tools", "chat_template_kwargs")
"""Columns beside messages that a chat template gets."""
_LOOKED_AT = 1000
"""Rows that are searched for one with a value in a column."""
_ORDER: tuple[Name, ...] = ("prompt-completion", "messages", "text")


@dataclass(frozen=True)
class Format:
    """The format of rows. A chat template turns lists of messages into text."""

    name: Name
    """TRL's name; `tokens`: rows that are tokenized already."""
    conversational: bool
    """Whether texts are lists of messages."""
    layout: str = field(default="", compare=False)
    """The name that other tools have for it: "Alpaca", "ShareGPT"; "" for TRL's own."""
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    """What is read, `prompt` and so on, and the column that holds it."""
    template: tuple[str, ...] = field(default=(), compare=False)
    """The columns that the prompt, or the text, is written with; empty where one column holds it."""
    images: bool = field(default=False, compare=False)
    """Whether rows have images: in a column, or in parts of messages."""

    def __str__(self) -> str:
        return f"conversational {self.name}" if self.conversational and self.name != "messages" else self.name

    def used(self) -> set[str]:
        """The columns that are read."""
        return {*self.columns.values(), *self.template}


def detect(rows: Rows, data: DataSettings) -> Format:
    """The format of the rows: by the columns of the first row, or the one that the user named. Raises InputError."""
    first = rows.rows[0]
    found = _template(first, data) or _mapped(first, data) or _known(rows, first, data)
    if found is None:
        raise advice.unknown(rows, data)
    name, columns, template, layout = found
    _require(columns.values(), template, first, rows, data)
    more = {key: column for key in ("system", *KEEP) if (column := _beside(key, first, data))}
    turns = [columns[key] for key in ("messages", "prompt", "completion") if key in columns]
    if name == "messages" and _holds_turns(value := turns_in(first_value(rows, columns["messages"]))):
        advice.refuse_turns(rows, columns["messages"], value[0], data)
    held = any(_holds_turns(first_value(rows, column)) for column in turns)
    if name == "prompt-completion" and (column := _history(layout, rows, data)):
        more["history"] = column
    as_chat = held or data.as_chat or "history" in more
    conversational = name == "messages" or (name == "prompt-completion" and as_chat)
    if name in ("text", "tokens"):
        more = {}
    elif not conversational:
        more = {key: column for key, column in more.items() if key == "system"}
    beside, images = _images(rows, data, turns) if name in ("messages", "prompt-completion") else (None, False)
    if images:  # TRL's collator of images hands nothing else to the chat template
        more = {key: column for key, column in more.items() if key == "system"}
        more |= {image_parts.IMAGES: beside} if beside else {}
    return Format(name, conversational, layout, {**columns, **more}, template, images)


def fields(template: str) -> list[str]:
    """The columns that a prompt template names, each once. Raises ValueError where braces do not match."""
    named = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if "" in named:
        raise ValueError("empty braces; a column's name stands in them")
    return list(dict.fromkeys(named))


def first_value(rows: Rows, column: str) -> Any:
    """The first value of a column that is not null; None where the first thousand rows have none."""
    return next((v for v in _values(rows, column) if not is_null(v)), None)


def _values(rows: Rows, column: str) -> Iterator[Any]:
    return (row.get(column) for row in islice(iter(rows.rows), _LOOKED_AT))


def _holds_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


_Found = tuple[Name, dict[str, str], tuple[str, ...], str]


def _template(first: Row, data: DataSettings) -> _Found | None:
    """The format with a prompt template."""
    if data.prompt_template is None:
        return None
    try:
        named = tuple(fields(data.prompt_template))
    except ValueError as error:
        raise InputError(f"the template cannot be read ({error})", where="data.prompt_template",
                         expected="columns in braces: '### Question: {question}'; {{ and }} for "
                         "braces") from None  # fmt: skip
    if data.format == "text":
        return "text", {}, named, ""
    known = next((name for name in ("completion", "output") if name in first), "completion")
    return "prompt-completion", {"completion": data.columns.get("completion") or known}, named, ""


def _mapped(first: Row, data: DataSettings) -> _Found | None:
    """The format that `data.columns` names."""
    given = {key: column for key, column in data.columns.items() if column is not None}
    if data.format in ("auto", "messages") and "messages" in given:
        return "messages", {"messages": given["messages"]}, (), ""
    if data.format in ("auto", "prompt-completion") and {"prompt", "completion"} & given.keys():
        columns = {key: given.get(key, key) for key in ("prompt", "completion")}
        return "prompt-completion", columns, (), ""
    if data.format in ("auto", "text") and "text" in given:
        return "text", {"text": given["text"]}, (), ""
    return None


def _known(rows: Rows, first: Row, data: DataSettings) -> _Found | None:
    """The format by the names of the columns."""
    wanted: tuple[Name, ...] = _ORDER if data.format == "auto" else (data.format,)
    if data.format == "auto" and "input_ids" in first:
        columns = [name for name in ("input_ids", "labels", "completion_mask", "assistant_masks") if name in first]
        return "tokens", {name: name for name in columns}, (), "tokenized"
    if data.format == "auto":
        advice.refuse_preferences(rows, data)
    for name in wanted:
        if name == "prompt-completion" and {"prompt", "completion"} <= first.keys():
            return name, {"prompt": "prompt", "completion": "completion"}, (), ""
        if name == "messages" and "messages" in first:
            return name, {"messages": "messages"}, (), ""
        if name == "text" and data.text_field in first:
            return name, {"text": data.text_field}, (), ""
    if "prompt-completion" in wanted and set(ALPACA) <= first.keys():
        template = ("instruction", "input") if "input" in first else ("instruction",)
        return "prompt-completion", {"completion": "output"}, template, "Alpaca"
    if "messages" in wanted:
        for column in (column for column in TURNS if column in first):
            if _holds_turns(turns := turns_in(first_value(rows, column))):
                return "messages", {"messages": column}, (), "ShareGPT" if "from" in turns[0] else ""
    return None


def _beside(key: str, first: Row, data: DataSettings) -> str | None:
    """The column with something beside the texts, a system text or tools; None where there is none."""
    column = data.columns.get(key, key) if key != "chat_template_kwargs" else key  # type: ignore[call-overload]
    if key == "tools" and column not in first and key not in data.columns and "functions" in first:
        return "functions"
    return column if column is not None and (column in first or key in data.columns) else None


def _history(layout: str, rows: Rows, data: DataSettings) -> str:
    """The column with the turns before an Alpaca row's instruction, where a row has some, or the one that the settings
    name; "" for none."""
    if "history" in data.columns:
        return data.columns["history"] or ""
    has_some = layout == "Alpaca" and any(isinstance(value, list) and value for value in _values(rows, "history"))
    return "history" if has_some else ""


def _images(rows: Rows, data: DataSettings, turns: Sequence[str]) -> tuple[str | None, bool]:
    """The column with images, None where there is none, and whether rows have images at all. turns: the columns of
    messages."""
    if image_parts.IMAGES in data.columns:
        column = data.columns["images"]
        return column, column is not None
    for row in islice(iter(rows.rows), _LOOKED_AT):
        column = next((name for name in image_parts.COLUMNS if image_parts.given(row.get(name))), None)
        if column is not None:
            return column, True
        if any(image_parts.are_in(row.get(name)) for name in turns):
            return next((name for name in image_parts.COLUMNS if name in row), None), True
    return None, False


def _require(columns: Any, template: Sequence[str], first: Row, rows: Rows, data: DataSettings) -> None:
    """Raises InputError for a column that the settings name and the rows do not have."""
    named = [column for column in data.columns.values() if column is not None]
    beside = {data.columns.get("role"), data.columns.get("content")}
    if not first:
        raise advice.unknown(rows, data)
    for column in dict.fromkeys([*columns, *template, *named]):
        if (
            column not in first
            and column not in beside
            and not any(column in row for row in islice(iter(rows.rows), _LOOKED_AT))
        ):
            raise advice.no_column(column, rows, data)
