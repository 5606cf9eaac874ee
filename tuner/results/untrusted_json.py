"""Checks a line of the ledger before it is used, whoever wrote it.

A run folder may come from a stranger, or from a failing disk. Each line ends with a checksum of the rest of it, and
every value that is later counted, compared or drawn is checked for its type, so that code that reads records need not
check again.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tuner.contract import Objective, checked_objectives

MAX_LINE = 16 << 20
"""Bytes of the longest line that is read. The longest that are written, those with a traceback, have some 100 kB."""
MAX_DEPTH = 16
"""The most levels of nested brackets."""
MAX_NUMBER = 2**53
"""The largest integer. Every JSON reader keeps it exactly; to divide 10 ** 400 would raise OverflowError."""
MAX_TIME = 1e11
"""The latest time, in seconds since 1970: the year 5138."""

_SUM = re.compile(rb',"sum":"([0-9a-f]{8})"}$')
_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def signed(line: str) -> str:
    """The JSON object in `line`, with `sum` as its last member: the CRC-32 of the line without it."""
    return f'{line[:-1]},"sum":"{zlib.crc32(line.encode()):08x}"}}'


def is_signed(line: bytes) -> bool:
    """Whether the line ends with a checksum. Raises ValueError if the checksum is wrong. line: without its newline."""
    found = _SUM.search(line)
    if found is None:
        return False
    if int(found[1], 16) != zlib.crc32(line[: found.start()] + b"}"):
        raise ValueError("its checksum does not fit: the line was changed, or the disk is failing")
    return True


def deep(line: str) -> bool:
    """Whether the JSON text is nested more than MAX_DEPTH levels."""
    if line.count("[") + line.count("{") <= MAX_DEPTH:
        return False
    depth, quoted, escaped = 0, False, False
    for c in line:
        if quoted:
            quoted, escaped = escaped or c != '"', c == "\\" and not escaped
        elif c == '"':
            quoted = True
        elif c in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif c in "]}":
            depth -= 1
    return False


def integer(value: Any) -> int:
    """An integer, also one that is written as a float (3.0)."""
    if type(value) is int and -MAX_NUMBER <= value <= MAX_NUMBER:
        return value
    if not isinstance(value, float) or not abs(value) <= MAX_NUMBER or not value.is_integer():
        raise ValueError("a whole number")
    return int(value)


def number(value: Any) -> float:
    """A number, or "NaN", "Infinity" or "-Infinity", which JSON cannot write as numbers."""
    if type(value) is float:
        return value
    if isinstance(value, str) and value in _NAMES:
        return _NAMES[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number") from None


def moment(value: Any) -> float:
    """Seconds since 1970."""
    found = number(value)
    if not 0 <= found <= MAX_TIME:
        raise ValueError("a time in seconds since 1970")
    return found


def ordinal(value: Any) -> int:
    """An integer that is 0 or more."""
    found = integer(value)
    if found < 0:
        raise ValueError("a whole number, 0 or more")
    return found


def text(value: Any) -> str:
    """Text."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def texts(value: Any) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of texts")
    return [text(one) for one in value]


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise ValueError("an object")
    return value


def text_by_name(value: Any) -> Mapping[str, str]:
    """Texts by name."""
    return {name: text(one) for name, one in mapping(value).items()}


def number_by_name(value: Any) -> Mapping[str, float | None]:
    """Numbers by name; None for one that was not measured."""
    return {name: None if one is None else number(one) for name, one in mapping(value).items()}


def objectives(value: Any) -> list[dict[str, str]]:
    """A search's objectives, as `Objective.to_dict` writes them."""
    try:
        return [one.to_dict() for one in checked_objectives([Objective.from_dict(mapping(one)) for one in value])]
    except (ValueError, TypeError):
        raise ValueError("a list of objectives") from None


Check = Callable[[Any], Any]
"""Returns the value in its type, or raises ValueError with what was expected."""

FIELDS: Mapping[str, Check] = {
    "time": moment,
    "trial": text,
    "number": ordinal,
    "attempt": ordinal,
    "params": mapping,
    "step": integer,
    "tokens": integer,
    "metrics": number_by_name,
    "best": number_by_name,
    "eval_loss": number,
    "best_eval_loss": number,
    "status": text,
    "reason": text,
    "details": mapping,
}
"""The fields that every event has, and their checks. null: the event has no such value."""

DETAILS: Mapping[str, Mapping[str, Check]] = {
    "search": {"name": text, "num_trials": ordinal, "workers": ordinal, "settings": text, "dashboard": text}
    | {"objectives": objectives, "gpus_per_trial": number, "price_per_gpu_hour": number, "budget": mapping},
    "prepared": {"facts": mapping, "notes": texts},
    "note": {"text": text},
    "started": {"distributions": text_by_name, "by": text, "addition": text},
    "setup": {"max_steps": integer, "trainable_parameters": integer, "total_parameters": integer}
    | {"resumed_step": integer, "node": text, "parts": text},
    "evaluation": {"resource": integer, "train_loss": number, "seconds": number, "memory": integer, "adapter": text},
    "ended": {"message": text, "remedy": text, "traceback": text},
    "paused": {"why": text},
    "added": {"name": text, "by": text},
    "stopped": {"by": text, "budget": text, "text": text},
    "finished": {"outcome": text, "message": text, "remedy": text},
}
"""The details of an event that are computed with, by kind, and their checks. Other details are only shown."""


def checked(values: Mapping[str, Any], checks: Mapping[str, Check], place: str = "") -> dict[str, Any]:
    """The values, each through its check if it has one; null is left out.

    place: goes before a field's name in errors. Raises ValueError with the name of a field whose value is wrong.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        check = checks.get(name)
        try:
            found[name] = value if check is None else check(value)
        except ValueError as error:
            raise ValueError(f"`{place}{name}` is {_shown(value)}, expected {error}") from None
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "a list"
    return f"{str(value)[:40]!r}" if isinstance(value, str) else str(value)[:40]
