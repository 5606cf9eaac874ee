"""The two keys that version 0.1 had for the one value that it measured, `eval_loss` and `best_eval_loss`.

Ledgers of that version have these and not `metrics`. What programs read (`--json`, `--events`, `best/manifest.json`)
has both, so that programs written for version 0.1 still work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.contract import EVAL_LOSS

Metrics = Mapping[str, float | None]
LAST, BEST = EVAL_LOSS.name, f"best_{EVAL_LOSS.name}"


def last(metrics: Metrics | None) -> dict[str, float | None]:
    """The key `eval_loss` for an evaluation; None if it measured none."""
    return {LAST: (metrics or {}).get(EVAL_LOSS.name)}


def last_and_best(metrics: Metrics | None, best: Metrics | None) -> dict[str, float | None]:
    """Both keys. metrics: of the last evaluation. best: of the best one."""
    return {**last(metrics), BEST: (best or {}).get(EVAL_LOSS.name)}


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event, with the two keys' values in `metrics` and `best`, unless the event has these."""
    found = dict(values)
    for key, field in ((LAST, "metrics"), (BEST, "best")):
        value = found.pop(key, None)
        if value is not None:
            found.setdefault(field, {EVAL_LOSS.name: value})
    return found
