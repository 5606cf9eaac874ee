"""Makes a row of people's own format the row of TRL's that is learned from."""

from __future__ import annotations

import json
import string
from typing import Any

from trainables.data import image_parts
from trainables.data.findings import listed, shown
from trainables.data.formats import KEEP, Format
from trainables.data.messages import BadRow, TurnKeys, is_null, joined, messages, without_nulls, written
from trainables.data.rows import Row, Rows
from trainables.settings import DataSettings
from tuner.contract import InputError

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n"
    "### Response:\n"
)
_WITHOUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
LEARNED = "learned"
"""Key of a shaped row: whether each of its turns is learned. It is there where one of them is not."""
EARLIER = "earlier"
"""Key of a shaped row: the places in its prompt of earlier answers that are learned too. It is there where it has
some."""


class Shaper:
    """Makes rows of one format rows of TRL's."""

    def __init__(self, fmt: Format, data: DataSettings) -> None:
        self._fmt, self._data = fmt, data
        self._names = turn_keys(data)
        self._template = list(string.Formatter().parse(data.prompt_template or ""))
        self._content = image_parts.kept if fmt.images else joined

    def shape(self, row: Row, is_arrow: bool = False) -> Row:
        """The row with the format's columns only. Raises BadRow.

        is_arrow: see `messages.messages`.
        """
        fmt = self._fmt
        if fmt.name == "tokens":
            return _tokens(row, fmt)
        if fmt.name == "text":
            text = self._filled(row) if fmt.template else _text(row, fmt.columns["text"], "text")
            return _require_writable({"text": text})
        images = image_parts.given(row.get(fmt.columns.get(image_parts.IMAGES, ""))) if fmt.images else []
        if not fmt.conversational:
            return _require_writable(self._texts(row) | ({image_parts.IMAGES: images} if fmt.images else {}))
        shaped = self._messages(row, is_arrow) if fmt.name == "messages" else self._prompt_and_answer(row, is_arrow)
        _require_something_learned(shaped)
        if fmt.images:
            return _require_writable(_with_images(shaped, images))
        for key in KEEP:
            column = fmt.columns.get(key)
            if column is not None and row.get(column) not in (None, ""):
                shaped[key] = without_nulls(row[column]) if is_arrow else row[column]
                if key == "tools" and column == "functions" and isinstance(shaped[key], list):
                    shaped[key] = [{"type": "function", "function": function} for function in shaped[key]]
        return _require_writable(shaped)

    def _texts(self, row: Row) -> Row:
        prompt = self._prompt(row)
        if system := self._system(row):
            prompt = f"{system}\n\n{prompt}"
        return {"prompt": prompt, "completion": _text(row, self._fmt.columns["completion"], "completion")}

    def _messages(self, row: Row, is_arrow: bool) -> Row:
        key = self._fmt.columns["messages"]
        found, learned = messages(_given(row, key), key, self._names, is_arrow, self._content)
        if (system := self._system(row)) and found[0]["role"] != "system":
            found, learned = [{"role": "system", "content": system}, *found], [True, *learned]
        return {"messages": found} if all(learned) else {"messages": found, LEARNED: learned}

    def _prompt_and_answer(self, row: Row, is_arrow: bool) -> Row:
        shaped: Row = {}
        turned: list[bool] = []
        columns = [self._fmt.columns.get(name) for name in ("prompt", "completion")]
        earlier = self._earlier(row)
        if (
            all(columns)
            and not self._data.as_chat
            and "history" not in self._fmt.columns
            and not any(isinstance(row.get(str(c)), list) for c in columns)
        ):
            _text(row, str(columns[0]), "prompt")
            raise BadRow("malformed", f"{columns[0]!r} is {shown(row[str(columns[0])])}",
                         f"{columns[0]!r}: a list of messages, as in the first row")  # fmt: skip
        for name, role in (("prompt", "user"), ("completion", "assistant")):
            column = self._fmt.columns.get(name)
            value = _given(row, column) if column else self._prompt(row)
            if column and not isinstance(value, list):
                value = _text(row, column, name)
            if isinstance(value, list):
                found, learned = messages(value, column or name, self._names, is_arrow, self._content)
            else:
                found, learned = [{"role": role, "content": value}], [True]
            if name == "prompt":
                found, learned = [*earlier, *found], [True] * len(earlier) + learned
            if name == "prompt" and (system := self._system(row)) and found[0]["role"] != "system":
                found, learned = [{"role": "system", "content": system}, *found], [True, *learned]
            shaped[name] = found
            turned += learned
        if earlier:
            first = int(shaped["prompt"][0]["role"] == "system")
            places = range(first + 1, first + len(earlier), 2)
            shaped[EARLIER] = [place for place in places if shaped["prompt"][place]["content"].strip()]
        return shaped if all(turned) else {**shaped, LEARNED: turned}

    def _earlier(self, row: Row) -> list[dict[str, Any]]:
        """The turns of the pairs that come before a prompt."""
        column = self._fmt.columns.get("history")
        pairs = row.get(column) if column else None
        turns: list[dict[str, Any]] = []
        for pair in pairs if isinstance(pairs, list) else [] if is_null(pairs) or pairs == "" else [pairs]:
            texts = [written(text) for text in pair] if isinstance(pair, list) else []
            if len(texts) != 2 or None in texts:
                raise BadRow("malformed", f"{column!r} has {shown(pair)}",
                             f"{column!r}: pairs of a question and its answer, [[\"...\", \"...\"]]")  # fmt: skip
            turns += [{"role": role, "content": t} for role, t in zip(("user", "assistant"), texts, strict=True)]
        return turns

    def _prompt(self, row: Row) -> str:
        """The prompt of a row as text."""
        if self._data.prompt_template is not None:
            return self._filled(row)
        if self._fmt.layout != "Alpaca":
            return _text(row, self._fmt.columns["prompt"], "prompt")
        instruction = _text(row, "instruction", "prompt")
        more = row.get("input")
        more = None if is_null(more) else written(more)
        if self._fmt.conversational:
            return f"{instruction}\n{more}" if more and more.strip() else instruction
        return (
            _WITH_INPUT.format(instruction=instruction, input=more)
            if more and more.strip()
            else _WITHOUT.format(instruction=instruction)
        )

    def _filled(self, row: Row) -> str:
        """The prompt template with the row's columns. A column that is null or missing leaves its place empty, unless
        all of them are."""
        parts, any_there = [], False
        for literal, name, _, _ in self._template:
            parts.append(literal)
            if name is None:
                continue
            value = row.get(name)
            text = "" if is_null(value) else written(value)
            if text is None:
                raise BadRow("malformed", f"{name!r} is {shown(value)}", f"{name!r}: a text, for data.prompt_template")
            any_there = any_there or bool(text.strip())
            parts.append(text)
        if not any_there and self._fmt.template:
            raise BadRow("empty", f"{listed(self._fmt.template)} empty: there is nothing to write into the template")
        return "".join(parts)

    def _system(self, row: Row) -> str:
        column = self._fmt.columns.get("system")
        value = row.get(column) if column else None
        return value if isinstance(value, str) and value.strip() else ""


def turn_keys(data: DataSettings) -> TurnKeys:
    """The names within a turn that the settings give."""
    return TurnKeys(data.columns.get("role") or "role", data.columns.get("content") or "content", data.roles)


def normalize(rows: Rows, fmt: Format, data: DataSettings) -> list[Row]:
    """The rows with the format's columns only, as TRL has them. Raises InputError for the first that is none."""
    shaper, result = Shaper(fmt, data), []
    for index, row in enumerate(rows.rows):
        try:
            result.append(shaper.shape(row, rows.is_arrow(index)))
        except BadRow as bad:
            raise InputError(bad.what, where=rows.where(index), expected=bad.expected) from None
    return result


def _with_images(shaped: Row, images: list[Any]) -> Row:
    """A conversational row with what its images are read from. Raises BadRow."""
    if LEARNED in shaped:
        raise BadRow("malformed", "turns with weight 0 beside images, which TRL's collator would learn",
                     "rows whose turns are all learned, or data.assistant_only_loss")  # fmt: skip
    if "messages" in shaped:
        turns, sources = image_parts.settle(shaped["messages"], images)
        return {"messages": turns, image_parts.IMAGES: sources}
    turns, sources = image_parts.settle(shaped["prompt"], images, shaped["completion"])
    return {"prompt": turns, "completion": shaped["completion"], image_parts.IMAGES: sources}


def _given(row: Row, key: str) -> Any:
    if key not in row:
        raise BadRow(
            "malformed", f"no {key!r}: the row has {listed(row) or 'nothing'}", f"{key!r}, as in the first row"
        )
    return row[key]


def _text(row: Row, key: str, name: str) -> str:
    value = _given(row, key)
    text = "" if is_null(value) else written(value)
    if text is None:
        raise BadRow("malformed", f"{key!r} is {shown(value)}", f"{key!r}: a text, as in the first row")
    if not text.strip():
        raise BadRow("empty", f"{key!r} is empty", f"{key!r}: a text, as in the first row")
    return text


def _require_something_learned(shaped: Row) -> None:
    """Raises BadRow for a row whose answers are all empty, or are not to be learned."""
    answers = [turn for turn in shaped.get("messages", ()) if turn["role"] == "assistant"]
    answers = answers or list(shaped.get("completion", ()))
    if answers and not any(turn.get("tool_calls") or _is_text(turn.get("content")) for turn in answers):
        raise BadRow("empty", "every turn that answers is empty", "an answer to learn")
    if not any(shaped.get(LEARNED, [True])):
        raise BadRow("empty", "every turn has weight 0", "a turn to learn")


def _is_text(content: Any) -> bool:
    return not isinstance(content, str) or bool(content.strip())


def _tokens(row: Row, fmt: Format) -> Row:
    ids = row.get("input_ids")
    if is_null(ids) or ids == []:
        raise BadRow("empty", "'input_ids' is empty", "a list of token ids")
    found: Row = {}
    for name in fmt.columns:
        values = row.get(name)
        if values is None and name != "input_ids":
            continue
        if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
            raise BadRow("malformed", f"{name!r} is {shown(values)}", "a list of whole numbers")
        if len(values) != len(ids or ()):
            raise BadRow("malformed", f"{len(values)} {name}", f"{len(ids or ())}, as there are input_ids")
        found[name] = values
    if min(found["input_ids"]) < 0:
        raise BadRow("malformed", f"'input_ids' has {min(found['input_ids'])}", "token ids, from 0 on")
    return found


def _require_writable(shaped: Row) -> Row:
    """Raises BadRow for text with half a surrogate pair: JSON may have one as an escape, and no tokenizer takes it."""
    pending: list[Any] = list(shaped.values())  # and not by recursion: a row may be nested as deeply as JSON is read
    while pending:
        found = pending.pop()
        if isinstance(found, str):
            if not found.isascii() and any("\ud800" <= c <= "\udfff" for c in found):
                broken = next(c for c in found if "\ud800" <= c <= "\udfff")
                raise BadRow("malformed", f"half a character: \\u{ord(broken):04x} stands alone",
                             "text in Unicode; characters beyond \\uffff take two escapes")  # fmt: skip
        elif isinstance(found, dict):
            pending += [*found, *found.values()]
        elif isinstance(found, list):
            pending += found
    return shaped


def key_of(shaped: Row) -> int:
    """A number that rows which are equal share, and others with a chance of 1 in 2^64."""
    values = tuple(shaped.values())
    return hash(values if all(isinstance(v, str) for v in values) else json.dumps(shaped, sort_keys=True, default=str))
