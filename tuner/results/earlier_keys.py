"""The two keys that version 0.1 had for the one number it knew, `eval_loss` and `best_eval_loss`.

Ledgers of that version have them alone. What programs read (`--json`, `--events`, `best/manifest.json`) has them beside
`metrics`, so that whoever reads them goes on as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.contract import EVAL_LOSS

Metrics = Mapping[str, float | None]
LAST, BEST = EVAL_LOSS.name, f"best_{EVAL_LOSS.name}"


def last(metrics: Metrics | None) -> dict[str, float | None]:
    """`eval_loss` of an evaluation; null where it measured none."""
    return {LAST: (metrics or {}).get(EVAL_LOSS.name)}


def last_and_best(metrics: Metrics | None, best: Metrics | None) -> dict[str, float | None]:
    """Both keys. best: the metrics of the best evaluation."""
    return {**last(metrics), BEST: (best or {}).get(EVAL_LOSS.name)}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event without the two keys: what they say stands in `metrics` and `best`, where an event has
    none of its own."""
    found = dict(values)
    for key, field in ((LAST, "metrics"), (BEST, "best")):
        value = found.pop(key, None)
        if value is not None:
            found.setdefault(field, {EVAL_LOSS.name: value})
    return found
