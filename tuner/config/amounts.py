"""Reads amounts as people write them: `20M` tokens, `2h`, `0.5%`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticCustomError

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
_COUNT = re.compile(rf"{_NUMBER} ?([kMBT]?)")
_DURATION = re.compile(rf"{_NUMBER} ?(s|min|h|d)")
_PERCENT = re.compile(rf"{_NUMBER} ?%")

MOST = 1e15
"""No amount is above this."""
COUNT_RULE = "a number above 0, with k, M, B or T behind it or without: 20M"
DURATION_RULE = "a time with its unit (s, min, h, d): 90 min, 1h 30min"
SHARE_RULE = "a share above 0 and below 1, or with %: 0.5%"
SPAN_RULE = "a number of trials (20), or a time with its unit (1h)"


def _wrong(rule: str) -> PydanticCustomError:
    return PydanticCustomError("expected", rule)  # type: ignore[arg-type]


def count(value: Any) -> int:
    """20_000_000 of `20M`. Raises PydanticCustomError."""
    found = _COUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    amount = float(found[1]) * _COUNTS[found[2]] if found else _plain(value)
    if amount is None or not 1 <= amount <= MOST:
        raise _wrong(COUNT_RULE)
    return round(amount)


def seconds(value: Any) -> float:
    """5400.0 of `90 min` or `1h 30min`. A plain number is refused, because it does not say of what. Raises
    PydanticCustomError."""
    if not isinstance(value, str):
        raise _wrong(DURATION_RULE)
    text, total, at = value.strip(), 0.0, 0
    while at < len(text):
        found = _DURATION.match(text, at)
        if found is None:
            raise _wrong(DURATION_RULE)
        total += float(found[1]) * _SECONDS[found[2]]
        at = found.end()
        while at < len(text) and text[at] == " ":
            at += 1
    if not 0 < total <= MOST:
        raise _wrong(DURATION_RULE)
    return total


def share(value: Any) -> float:
    """0.005 of `0.5%`. Raises PydanticCustomError."""
    found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    amount = float(found[1]) / 100 if found else _plain(value)
    if amount is None or not 0 < amount < 1:
        raise _wrong(SHARE_RULE)
    return amount


def is_duration(value: Any) -> str:
    """The text, if it is a time. Raises PydanticCustomError."""
    seconds(value)
    return str(value).strip()


def span(value: Any) -> int | str:
    """A number of trials, or a time as it was written. Raises PydanticCustomError."""
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 1):
        raise _wrong(SPAN_RULE)
    return value if isinstance(value, int) else _or(is_duration, value, SPAN_RULE)


def _or(read: Callable[[Any], str], value: Any, rule: str) -> str:
    try:
        return read(value)
    except PydanticCustomError:
        raise _wrong(rule) from None


def _plain(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
