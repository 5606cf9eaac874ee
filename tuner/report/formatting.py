"""Writes numbers and values as short words, in the same way wherever a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_SIZE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def value(x: Any, scientific: bool = False) -> str:
    """A hyperparameter's value: 0.0029 is "2.9e-3", 0.05 stays "0.05", a list joins with "+".

    scientific: write every float as a power of ten, so that a column of learning rates reads alike.
    """
    if isinstance(x, bool):
        return "true" if x else "false"
    if x is None:
        return "none"
    if isinstance(x, float):
        return _power(x) if scientific and x and math.isfinite(x) else _float(x)
    if isinstance(x, Mapping):
        return " ".join(f"{k}={value(v)}" for k, v in x.items())
    if isinstance(x, list | tuple):
        return "+".join(value(v) for v in x)
    return str(x)


def _float(x: float) -> str:
    if not math.isfinite(x):
        return "nan" if math.isnan(x) else ("inf" if x > 0 else "-inf")
    if x == 0:
        return "0.0"
    if 0.01 <= abs(x) < 10_000:
        text = f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"
        return text if "." in text or "e" in text or abs(x) >= 1000 else f"{text}.0"
    return _power(x)


def exact(x: Any) -> str:
    """A value with the digits to type it in again: 3e-4, 0.00123457 is "1.23457e-3", 64, "2r"."""
    if not isinstance(x, float) or not is_scientific(x):
        return f"{x:.6g}" if isinstance(x, float) else value(x)
    mantissa, _, exponent = f"{x:.5e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def is_scientific(x: Any) -> bool:
    """Whether `value` would write it as a power of ten."""
    return isinstance(x, float) and math.isfinite(x) and x != 0 and not 0.01 <= abs(x) < 10_000


def _power(x: float) -> str:
    mantissa, _, exponent = f"{x:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def measured(x: float | None) -> str:
    """A measured value such as a loss: three decimals, more if it is small; "-" for None."""
    if x is None:
        return "-"
    if not math.isfinite(x) or abs(x) >= 10_000:
        return _float(x)
    if x == 0 or abs(x) >= 0.1:
        return f"{x:.3f}"
    return f"{x:.5f}" if abs(x) >= 0.001 else _float(x)


def count(n: float) -> str:
    """8_190_000_000 is "8.2B", 161_480_704 is "161.5M", 950 stays "950"."""
    return _scaled(n, _COUNT_UNITS, "")


def size(n: float) -> str:
    """Bytes: 1_210_000 is "1.2 MB"."""
    return _scaled(n, _SIZE_UNITS, " ") if n >= 1000 else f"{n:.0f} B"


def _scaled(n: float, units: tuple[tuple[float, str], ...], gap: str) -> str:
    for factor, unit in units:
        if abs(n) >= factor * 0.9995:  # 999_950 and up would round to "1000.0k"
            return f"{n / factor:.1f}{gap}{unit}"
    return f"{n:.0f}"


def percent(share: float) -> str:
    """0.115 is "11.5%", 0.31 is "31.0%" (`whole_percent` gives "31%")."""
    points = share * 100
    if points and abs(points) < 0.05:
        return f"{points:.1g}%" if abs(points) >= 0.001 else "<0.001%"
    return f"{points:.1f}%"


def whole_percent(share: float) -> str:
    """0.314 is "31%"; a positive share that would round to 0 is "<1%"."""
    return "<1%" if 0 < share < 0.005 else f"{share * 100:.0f}%"


def duration(seconds: float) -> str:
    """Two units at most: "41 s", "1 min 12 s", "2 h 5 min", "3 d 4 h"."""
    s = max(0, round(seconds)) if math.isfinite(seconds) else 0
    for big, big_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if s >= big:
            rest = s % big // small
            return f"{s // big} {big_name} {rest} {small_name}" if rest else f"{s // big} {big_name}"
    return f"{s} s"


def about(seconds: float) -> str:
    """An estimate in seconds, rounded: below a minute to 5 s, below 10 minutes to 30 s, then to minutes, and from
    90 minutes on to 0.1 h, from 10 h to 1 h."""
    if seconds < 60:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 600:
        halves = round(seconds / 30)
        return f"{halves // 2} min 30 s" if halves % 2 else f"{halves // 2} min"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{round(seconds / 3600)} h"


def between(least: float, most: float) -> str:
    """An estimate in seconds with its uncertainty: "3 to 5 min", "40 s to 2 min"; "about 4 min" where both ends are
    rounded to the same."""
    low, high = _rounded(least), _rounded(most)
    if low == high:
        return f"about {about((least + most) / 2)}"
    return f"{low[0]} to {' '.join(high)}" if low[1] == high[1] else f"{' '.join(low)} to {' '.join(high)}"


def _rounded(seconds: float) -> tuple[str, str]:
    if seconds < 57.5:
        return str(max(5, 5 * round(seconds / 5))), "s"
    if seconds < 5400:
        return str(max(1, round(seconds / 60))), "min"
    return f"{seconds / 3600:.1f}" if seconds < 36_000 else str(round(seconds / 3600)), "h"


def hours(seconds: float) -> str:
    """Hours of work, with two digits: 61 s is "0.017", 4,700 s is "1.3", 36,000 s is "10"."""
    if not math.isfinite(seconds):
        return "0"
    return f"{seconds / 3600:,.0f}" if seconds >= 35_640 else f"{seconds / 3600:.2g}"


def money(amount: float) -> str:
    """An amount in the user's currency: 3.2 is "3.20", 1234.5 is "1,234", 0.0042 is "0.0042"."""
    if not math.isfinite(amount):
        return "0"
    if amount >= 995:
        return f"{amount:,.0f}"
    return f"{amount:.2f}" if amount >= 0.1 or not amount else f"{amount:.2g}"


def timestamp(seconds: float) -> str:
    """A running clock of a fixed form, for programs: "00:01:12", "102:05:09"."""
    s = max(0, int(seconds))
    return f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}"


def clock(seconds: float) -> str:
    """A running clock: "1:12", "2:05:09"."""
    s = max(0, int(seconds))
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


def plural(n: int, noun: str) -> str:
    """1 is "1 trial", 3 is "3 trials"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def trainable(parameters: float, total: float) -> str:
    """ "161.5M of 8.2B, 1.9%": how much of a model a trial trains."""
    share = f", {percent(parameters / total)}" if total else ""
    return f"{count(parameters)} of {count(total)}{share}"


def listing(names: list[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return f" {last} ".join(([", ".join(names[:-1])] if names[1:] else []) + names[-1:])
