"""Compares two searches: their winners, their cost, and what was different."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.report import formatting as words
from tuner.report.lines import Line, clean, crop, labelled, line, pad, shorten, width_of
from tuner.report.standing import gap
from tuner.report.table import label_of, parameters
from tuner.results import sameness
from tuner.results.records import SearchRecord

MOST = 40
"""The most settings that differ that are shown."""
CELL = 40
"""The most cells of a value."""
OF_THE_RUN = ("about", "run")
"""Sections of the settings that say nothing of what was trained."""


@dataclass(frozen=True)
class Compared:
    """One of the two searches."""

    name: str
    """Its name."""
    record: SearchRecord
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """Its settings; empty where they cannot be read."""


def comparison(one: Compared, other: Compared, width: int, labels: Mapping[str, str]) -> list[Line]:
    """The text."""
    out = _table(_rows(one, other, labels), (one.name, other.name), width)
    differing = differences(one.resolved, other.resolved)
    if differing:
        told = [(key, words.value(left), words.value(right)) for key, left, right in differing[:MOST]]
        out += [(), *_table(told, (one.name, other.name), width, "setting")]
        if len(differing) > MOST:
            out.append(line((f"  … {len(differing) - MOST} more settings differ", "dim")))
    out.append(())
    for text in verdict(one, other):
        out += labelled("so", text, width, "best")
    why = incomparable(one.record, other.record)
    return out + (labelled("but", why, width, "warn") if why else [])


def comparison_json(one: Compared, other: Compared) -> dict[str, Any]:
    """The same for programs."""
    return {
        "runs": [_run_json(one), _run_json(other)],
        "settings": [
            {"key": key, "values": list(values)} for key, *values in differences(one.resolved, other.resolved)
        ],
        "verdict": verdict(one, other),
        "incomparable": incomparable(one.record, other.record) or None,
    }


def verdict(one: Compared, other: Compared) -> list[str]:
    """Which search has the better winner, in a sentence; empty where one has none."""
    objective = one.record.objective
    mine = one.record.best.best_value if one.record.best else None
    others = other.record.best.best_value if other.record.best else None
    if mine is None or others is None or objective.name != other.record.objective.name:
        return []
    if mine == others:
        return [f"both reach {words.measured(mine)}"]
    better, worse = (one, other) if objective.better(mine, others) else (other, one)
    best, second = (mine, others) if better is one else (others, mine)
    return [
        f"{clean(better.name)}: {words.measured(best)}, {gap(objective, best, second)} {clean(worse.name)}'s "
        f"{words.measured(second)}"
    ]


def incomparable(one: SearchRecord, other: SearchRecord) -> str:
    """What speaks against comparing the values of two searches; "" where nothing does."""
    if one.objective.name != other.objective.name or one.objective.direction != other.objective.direction:
        return f"they measure different things: {clean(one.objective.title)} and {clean(other.objective.title)}"
    left, right = (sameness.digests(sameness.parts(record.facts)) for record in (one, other))
    differ = [name for name in left if name in right and left[name]["fingerprint"] != right[name]["fingerprint"]]
    if not differ:
        return ""
    told = words.listing([shorten(clean(name), CELL) for name in differ[:8]])
    return f"not the same in both: {told}; values that are measured on other rows or tokens cannot be compared"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings that differ, by dotted name; None for one that is not there. Empty where the settings of one are not
    known."""
    if not one or not other:
        return []
    left, right = _flat(one), _flat(other)
    keys = dict.fromkeys([*left, *right])
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _rows(one: Compared, other: Compared, labels: Mapping[str, str]) -> list[tuple[str, str, str]]:
    pair = (one.record, other.record)
    objective = one.record.objective
    rows = [
        ("trials", [f"{r.num_ended} of {max(r.num_trials, r.num_ended)}" for r in pair]),
        ("best trial", [str(r.best.number) if r.best else "none" for r in pair]),
        (objective.title, [words.measured(r.best.best_value if r.best else None) for r in pair]),
        ("the recipe", [words.measured(r.recipe.best_value if r.recipe else None) for r in pair]),
        ("better by", [words.percent(r.gain) if r.gain is not None else "-" for r in pair]),
        ("time", [words.duration(r.wall_s) for r in pair]),
        ("tokens", [words.count(r.tokens) for r in pair]),
        ("worker-hours", [words.hours(r.worker_s) for r in pair]),
    ]
    for name in dict.fromkeys([*parameters(one.record), *parameters(other.record)]):
        best = [r.best.params if r.best else {} for r in pair]
        rows.append((label_of(name, labels), [words.value(p[name]) if name in p else "·" for p in best]))
    return [(name, cells[0], cells[1]) for name, cells in rows]


def _table(rows: list[tuple[str, str, str]], heads: tuple[str, str], width: int, first: str = "") -> list[Line]:
    cells = [tuple(shorten(clean(cell), CELL) for cell in row) for row in [(first, *heads), *rows]]
    widths = [max(width_of(row[column]) for row in cells) for column in range(3)]
    told = ["  ".join(map(pad, row, widths)).rstrip() for row in cells]
    return [crop(line((row, "head" if at == 0 else "")), width) for at, row in enumerate(told)]


def _run_json(run: Compared) -> dict[str, Any]:
    record = run.record
    best = record.best
    return {
        "name": run.name,
        "trials": record.num_ended,
        "best": best and {"trial": best.number, "params": best.params, "metrics": best.best_metrics},
        "recipe": record.recipe.best_metrics if record.recipe else None,
        "tokens": record.tokens,
        "wall_s": round(record.wall_s, 3),
        "worker_s": round(record.worker_s, 3),
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if not prefix and key in OF_THE_RUN:
            continue
        if isinstance(value, Mapping) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
