"""Writes search spaces as text: the list of those shipped, and one with its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.report.lines import Line, clean, labelled, line, title, width_of, wrap
from tuner.report.plan import parameter_table
from tuner.space.parameters import shown


def space_list(spaces: Sequence[Any], width: int) -> list[Line]:
    """A line a space: its name and its description."""
    name_width = max((width_of(space.name) for space in spaces), default=0)
    out = []
    for space in spaces:
        described = clean(space.description) or f"{len(space.parameters)} parameters"
        first, *more = wrap(described, max(20, width - name_width - 2))
        out.append(line((f"{space.name:<{name_width}}  ", "strong"), first))
        out += [line(" " * (name_width + 2), part) for part in more]
    out.append(())
    out.append(line(("look   ", "head"), ("python -m tuner spaces NAME", "code")))
    out.append(line(("use    ", "head"), ("python -m tuner search --space NAME", "code")))
    return out


def space_report(space: Any, width: int, *, path: str = "") -> list[Line]:
    """One space: its parameters, and the settings that it brings. path: its file."""
    out = labelled(space.name, clean(space.description), width) if space.description else [line(title(space.name))]
    out += parameter_table(space.describe(), width)
    settings = ", ".join(f"{name} {_setting(value)}" for name, value in space.settings.items())
    out += labelled("sets", settings, width) if settings else []
    out += [line(("file   ", "head"), (path, "code"))] if path else []
    return out


def _setting(value: Any) -> str:
    return ", ".join(f"{k} {shown(v)}" for k, v in value.items()) if isinstance(value, dict) else shown(value)
