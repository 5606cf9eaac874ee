"""Makes a list of turns, as chat files of many tools have it, the list of messages that a chat template takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainables.data.findings import listed, shown

ROLES: Mapping[str, str] = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "chatbot": "assistant", "ai": "assistant",
    "observation": "tool", "tool": "tool", "system": "system",
}  # fmt: skip
"""The role of a chat template for the names that other tools give it, in lower case."""
_SHAREGPT: Mapping[str, str] = {**ROLES, "function": "tool", "function_call": "assistant", "tool_response": "tool"}
"""Of turns with `from` and `value`. With `role` and `content`, a function is what a template makes of it."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of a turn with what was thought before the answer, as chat templates know them."""
TEMPLATE_ROLES = frozenset({"user", "assistant", "system", "developer", "tool", "function", "ipython"})
"""The roles that chat templates are made for. Many a template writes any other name as if it were one of them."""
_LEARNED = ("weight", "train", "training")
"""Keys of a turn that say whether it is learned."""
TURN_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", *REASONING, *_LEARNED})
"""Keys of a turn that have a meaning here, or that only tie a result to its call."""


@dataclass(frozen=True)
class TurnKeys:
    """The people's own names within a turn."""

    role: str = "role"
    """The key of the role."""
    content: str = "content"
    """The key of the content."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """The role of a chat template by their own name for it."""

    def role_of(self, name: str, is_sharegpt: bool) -> str:
        """The role that a chat template has for the name of one; the name itself where none is known."""
        known = _SHAREGPT if is_sharegpt else ROLES
        return self.roles.get(name) or known.get(name.strip().lower(), name)


class BadRow(Exception):
    """A row that cannot be learned from."""

    def __init__(self, kind: Literal["empty", "malformed"], what: str, expected: str = "") -> None:
        super().__init__(what)
        self.kind, self.what, self.expected = kind, what, expected


def is_null(value: Any) -> bool:
    """Whether a value stands for none: null, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and value != value)


def joined(parts: list[Any], expected: str) -> str:
    """The text of a content that comes in parts. Raises BadRow for a part that is no text."""
    return "".join(_part(part, expected) for part in parts)


def messages(
    turns: Any,
    key: str,
    names: TurnKeys,
    is_arrow: bool,
    content_of: Callable[[list[Any], str], Any] = joined,
) -> tuple[list[dict[str, Any]], list[bool]]:
    """The messages of a row, and whether each is learned. Raises BadRow.

    key: the column, for the message.
    is_arrow: whether a schema has filled calls and arguments with the keys of all other rows.
    content_of: makes the content of a message of its parts.
    """
    expected = f'{key!r}: a list of {{"role": ..., "content": ...}}'
    if is_null(turns) or turns == [] or turns == "":
        raise BadRow("empty", f"{key!r} is empty", expected)
    turns = turns_in(turns)
    if not isinstance(turns, list):
        raise BadRow("malformed", f"{key!r} is {shown(turns)}", expected)
    found, learned = [], []
    for turn in turns:
        if not isinstance(turn, dict):
            raise BadRow("malformed", f"a message that is {shown(turn)}", expected)
        found.append(_message(turn, names, is_arrow, expected, content_of))
        learned.append(_is_learned(found[-1]))
    return found, learned


def turns_in(value: Any) -> Any:
    """The turns of a column: the list that a text holds as JSON, as tables of texts have it; else the value itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def written(value: Any) -> str | None:
    """A text, a number or a truth value as text; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None


def without_nulls(value: Any) -> Any:
    """The value without the keys that are None, at any depth."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _message(
    turn: dict[str, Any],
    names: TurnKeys,
    is_arrow: bool,
    expected: str,
    content_of: Callable[[list[Any], str], Any],
) -> dict[str, Any]:
    # Arrow tables give every message the keys of all others, filled with None; templates test for presence
    message = {name: value for name, value in turn.items() if value is not None}
    is_sharegpt = "from" in message and "role" not in message
    for theirs, ours in ((names.role, "role"), (names.content, "content"), ("from", "role"), ("value", "content")):
        if theirs in message and ours not in message:
            message[ours] = message.pop(theirs)
    call = message.get("function_call")
    if isinstance(call, dict) and not message.get("tool_calls"):  # OpenAI's name before there were several
        message["tool_calls"] = [{"type": "function", "function": message.pop("function_call")}]
    content = next((key for key in (names.content, "content", "value") if key in turn), "")
    if content and "content" not in message and not message.get("tool_calls"):
        message["content"] = ""  # a null
    if "role" not in message or not ("content" in message or message.get("tool_calls")):
        raise BadRow("malformed", f"a message with {listed(turn) or 'nothing'}", expected)
    role = message["role"]
    if isinstance(role, str):
        message["role"] = names.role_of(role, is_sharegpt)
    if isinstance(message.get("content"), list):
        message["content"] = content_of(message["content"], expected)
    if is_arrow and "tool_calls" in message:
        message["tool_calls"] = without_nulls(message["tool_calls"])
    if not message.get("tool_calls", True):
        del message["tool_calls"]
    return message


def _part(part: Any, expected: str) -> str:
    """The text of one part of a content that comes in parts."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, dict) else part
    raise BadRow("malformed", f"a message with a part of type {shown(kind)}, which is no text", expected)


def _is_learned(message: dict[str, Any]) -> bool:
    """Whether a turn is learned; takes the key that says so out of it."""
    learned = True
    for key in _LEARNED:
        if key not in message:
            continue
        value = message.pop(key)
        if value not in (0, 1):
            raise BadRow("malformed", f"a message with {key!r} {shown(value)}", f"{key!r}: 0 or 1")
        learned = learned and bool(value)
    return learned
