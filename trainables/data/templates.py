"""Writes conversations with a chat template, and finds out what a template leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trainables.data.findings import Finding, listed, shown, shown_name
from trainables.data.formats import Format
from trainables.data.messages import REASONING
from trainables.data.review import Shape, Turns, text_arguments, turns_of
from trainables.data.rows import Row
from trainables.settings import DataSettings
from tuner.contract import InputError

_OPTIONAL = ("system", "developer", "tool", "function", "ipython")
"""Roles that a template may leave out with a note. A template that writes no user or no assistant is refused."""
_BESIDE = {"tools": "tools", "tool_calls": "tool calls of the assistant", "arguments": "arguments of tool calls",
           "reasoning": "reasoning of the assistant"}  # fmt: skip
"""What rows have beside turns of a role, in words."""
_CHECKED = 64
"""Orders of turns that are tried with the template."""
_TURNS = 24
"""Turns of a row that are tried."""
_KEYS = 8
"""Further keys of turns that have a finding of their own."""


def check(tokenizer: Any, fmt: Format, data: DataSettings, where: str, first: Row | None, row: str) -> str | None:
    """Raises InputError for masks, formats and templates that cannot work together; gives the template that marks the
    assistant's turns, or None where none is needed.

    where: the tokenizer, or the template's file, for the message. first: a row in TRL's format, None: no row is tried
    (templates of bases that take images may write parts alone); row: its place.
    """
    if data.assistant_only_loss and not fmt.conversational and fmt.name != "tokens":
        raise InputError(f"assistant_only_loss with {fmt} rows", where="data.assistant_only_loss",
                         expected="conversational rows", remedy="set data.assistant_only_loss to false")  # fmt: skip
    if data.completion_only_loss and fmt.name not in ("prompt-completion", "tokens"):
        raise InputError(f"completion_only_loss with {fmt} rows", where="data.completion_only_loss",
                         expected="prompt and completion rows",
                         remedy="set data.completion_only_loss to null")  # fmt: skip
    if not fmt.conversational:
        if tokenizer.eos_token is None and fmt.name != "tokens":
            raise InputError("the tokenizer has no end-of-sequence token", where=where,
                             expected="an eos_token, which ends every row")  # fmt: skip
        return None
    if tokenizer.chat_template is None:
        raise InputError(f"{fmt} rows, and the tokenizer has no chat template", where=where,
                         expected="a chat_template in the tokenizer", remedy="set data.chat_template to a .jinja file, "
                         "or use prompt and completion texts")  # fmt: skip
    if first is not None:
        _sees_messages(tokenizer, first, where, row)
    if not data.assistant_only_loss:
        return None
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return None
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:
        raise InputError("the chat template does not mark the assistant's turns", where="data.assistant_only_loss",
                         expected="{% generation %} ... {% endgeneration %} around them",
                         remedy="set data.chat_template to a template that has them") from None  # fmt: skip


def unwritten(
    tokenizer: Any, turns: Turns, row_of: Callable[[int], Row], where_of: Callable[[int], str], template: str,
) -> list[Finding]:  # fmt: skip
    """What the chat template does not write, found by changing one turn at a time. Raises InputError where that is the
    user's or the assistant's turns.

    turns: what those of the rows have. template: its place, for the message.
    """
    shapes = turns.shapes
    total = sum(count for count, _ in shapes.values())
    lost: dict[str, tuple[int, int]] = {}
    kept: set[str] = set()
    for shape in _chosen(shapes):
        index = shapes[shape][1]
        row = row_of(index)
        for what, is_written in _tried(tokenizer, row, where_of(index)):
            if is_written:
                kept.add(what)
            else:
                lost.setdefault(what, (_rows_with(what, shapes) or shapes[shape][0], index))
    found = []
    for what, (count, index) in lost.items():
        some = "some " if what in kept else ""
        subject = _BESIDE.get(what, f"turns of the role {what!r}")
        told = f"the chat template does not write {some}{subject}, which {count:,} of {total:,} rows have"
        if what == "arguments":
            told = (f"the chat template writes as JSON what is JSON already: arguments of tool calls are text in "
                    f"{count:,} of {total:,} rows, and it expects objects")  # fmt: skip
        example = shown(_example(row_of(index), what))
        if what not in (*_OPTIONAL, *_BESIDE) and not some:
            raise InputError(f"{told}: {example} and nothing of it would be learned", where=where_of(index),
                             expected=f"a template that writes {what!r}",
                             remedy=_other_roles(kept, template))  # fmt: skip
        found.append(Finding("unwritten_turns", told, count, total, where_of(index), example))
    return [*found, *_unwritten_keys(tokenizer, turns, total, row_of, where_of)]


def _unwritten_keys(
    tokenizer: Any, turns: Turns, total: int, row_of: Callable[[int], Row], where_of: Callable[[int], str]
) -> Iterator[Finding]:
    """What the chat template does not write of the further keys of turns: one finding for each of the first few, the
    most frequent ones first."""
    lost = []
    for key in sorted(turns.keys, key=lambda key: -turns.keys[key][0])[:_CHECKED]:
        count, index = turns.keys[key]
        row = row_of(index)
        _, differs = _rendered(tokenizer, row, where_of(index))
        written = [
            differs(_with(messages, i, without)) or differs(_with(messages, i, {**without, key: "something else"}))
            for messages in [turns_of(row)]
            for i, turn in enumerate(messages[:_TURNS])
            if key in turn
            for without in [{name: value for name, value in turn.items() if name != key}]
        ]
        if not all(written):
            lost.append((key, "some " if any(written) else "", count, index))
    for i, (key, some, count, index) in enumerate(lost[:_KEYS]):
        more = f"; nor {listed(name for name, *_ in lost[_KEYS:])}" if i == _KEYS - 1 and lost[_KEYS:] else ""
        subject = f"{some}{shown_name(key)!r} of turns"
        told = f"the chat template does not write {subject}, which {count:,} of {total:,} rows have"
        value = next(turn[key] for turn in turns_of(row_of(index)) if key in turn)
        yield Finding("unwritten_turns", told + more, count, total, where_of(index), shown(value))


def turns_without(row: Row, index: int, content: str) -> list[dict[str, Any]]:
    """The messages of a row, with another content in one of them."""
    return [{**turn, "content": content} if i == index else turn for i, turn in enumerate(turns_of(row))]


def common(row: Row, template: str | None) -> dict[str, Any]:
    """Arguments of the chat template besides the messages: the template, the row's tools and its own arguments."""
    tools = json.loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools")
    return {"chat_template": template, "tools": tools, **row.get("chat_template_kwargs", {})}


@contextmanager
def rendering(row: str, template: str = "") -> Iterator[None]:
    """Within it, errors of a chat template, which is a program, are raised as InputError with the row."""
    from jinja2 import TemplateSyntaxError

    try:
        yield
    except InputError:
        raise
    except TemplateSyntaxError as error:
        raise InputError(f"the chat template is malformed: {error.message}, in its line {error.lineno}",
                         where=template or row, expected="a Jinja template",
                         remedy="mend it, or set data.chat_template to another") from None  # fmt: skip
    except Exception as error:
        told = (str(error).strip().splitlines() or [""])[0][:200]
        raise InputError(f"the chat template does not take this row ({type(error).__name__}: {told})", where=row,
                         expected="messages, tools and chat_template_kwargs as the template wants them",
                         remedy="mend the row, or set data.chat_template to another template") from None  # fmt: skip


def _sees_messages(tokenizer: Any, first: Row, where: str, row: str) -> None:
    """Raises InputError for a template that ignores the messages: all rows would be the same text."""
    turns = turns_of(first)
    changed = [
        {**turn, "content": f"something else {i}"} if "content" in turn else turn for i, turn in enumerate(turns)
    ]
    with rendering(row, where):
        text = tokenizer.apply_chat_template(turns, tokenize=False, **common(first, None))
    try:
        other = tokenizer.apply_chat_template(changed, tokenize=False, **common(first, None))
    except Exception:
        return  # it reads the content, and requires something of it that the changed one has not
    if turns != changed and text == other:
        raise InputError(f"the chat template ignores the messages: it writes {text!r:.60} whatever they say",
                         where=where, expected="a template that writes each message's content",
                         remedy="set data.chat_template to a .jinja file, or leave it null for the tokenizer's own",
                         )  # fmt: skip


def _chosen(shapes: dict[Shape, tuple[int, int]]) -> list[Shape]:
    """Orders of turns to try: the most frequent ones, and for every role one that has it."""
    chosen = sorted(shapes, key=lambda shape: -shapes[shape][0])[:_CHECKED]
    known = {turn for shape in chosen for turn in shape}
    for shape in shapes:
        if new := set(shape) - known:
            chosen.append(shape)
            known |= new
    return chosen


def _tried(tokenizer: Any, row: Row, where: str) -> Iterator[tuple[str, bool]]:
    """For each turn of a row its role, and for calls and tools their name, with whether the template writes it."""
    turns, more = turns_of(row), common(row, None)
    whole, differs = _rendered(tokenizer, row, where)
    for index, turn in enumerate(turns[:_TURNS]):
        if isinstance(turn.get("content"), str) and turn["content"].strip():
            yield str(turn["role"]), differs(turns_without(row, index, "something else"))
        if turn.get("tool_calls"):
            other = {**turn, "tool_calls": [_other_call(call) for call in turn["tool_calls"]]}
            yield "tool_calls", differs(_with(turns, index, other))
            written = [text for call in turn["tool_calls"] if (text := text_arguments(call))]
            if any(text not in whole and text.replace('"', '\\"') in whole for text in written):
                yield "arguments", False
        if own := {key: "something else" for key in REASONING if turn.get(key)}:
            yield "reasoning", differs(_with(turns, index, {**turn, **own}))
    if more.get("tools"):
        yield "tools", differs(turns, tools=None)


def _rendered(tokenizer: Any, row: Row, where: str) -> tuple[str, Callable[..., bool]]:
    """The text of a row, and what says whether other turns, or other arguments of the template, have another text."""
    more = common(row, None)
    with rendering(where):
        whole: str = tokenizer.apply_chat_template(turns_of(row), tokenize=False, **more)

    def differs(other: list[dict[str, Any]], **changed: Any) -> bool:
        try:
            return bool(tokenizer.apply_chat_template(other, tokenize=False, **{**more, **changed}) != whole)
        except Exception:
            return True  # it reads what was changed, and requires something of it

    return whole, differs


def _with(turns: list[dict[str, Any]], index: int, turn: dict[str, Any]) -> list[dict[str, Any]]:
    return [*turns[:index], turn, *turns[index + 1 :]]


def _other_call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": {**call["function"], "name": "something_else"}}
    return {**call, "name": "something_else"}


def _rows_with(what: str, shapes: dict[Shape, tuple[int, int]]) -> int:
    if what in _BESIDE:
        return sum(count for shape, (count, _) in shapes.items() if any(what in beside for _, beside in shape))
    return sum(count for shape, (count, _) in shapes.items() if any(role == what for role, _ in shape))


def _example(row: Row, what: str) -> Any:
    if what == "tools":
        return row.get("tools")
    turns = turns_of(row)
    if what in ("tool_calls", "arguments"):
        return next((turn["tool_calls"] for turn in turns if turn.get("tool_calls")), None)
    if what == "reasoning":
        return next((turn[key] for turn in turns for key in REASONING if turn.get(key)), None)
    return next((turn.get("content") for turn in turns if turn["role"] == what), None)


def _other_roles(kept: set[str], template: str) -> str:
    written = ", ".join(sorted(kept - _BESIDE.keys()))
    return f"set data.chat_template to a template that writes them{f'; {template} writes {written}' if written else ''}"
