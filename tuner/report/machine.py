"""Makes plain dicts of a search's facts, for programs: what strict JSON can write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tuner.results import earlier_keys
from tuner.results.ledger import Event
from tuner.results.records import Point, SearchRecord, TrialRecord


def search_json(record: SearchRecord, path: Path | str) -> dict[str, Any]:
    """The result of a search, which `search --json` prints at the end. path: the run folder; text if it is on a cluster
    and cannot be looked at from here."""
    best = record.best
    begun = record.recipe.best_metrics if record.recipe else {}
    folder = f"{path}/best"
    there = Path(folder).is_dir() if isinstance(path, Path) else record.finished
    return {
        "name": record.name,
        "path": str(path),
        "trials": len(record.trials),
        "counts": record.counts,
        "best": best
        and {
            "trial": best.number,
            "params": best.params,
            **earlier_keys.last(best.best_metrics),
            "metrics": best.best_metrics,
            "path": folder if there else None,
        },
        "recipe": {**earlier_keys.last(begun), "metrics": begun},
        "objectives": [objective.to_dict() for objective in record.objectives],
        "spent": {"budget": record.spent_of, "message": record.spent} if record.spent else None,
        "tokens": record.tokens,
        "wall_s": round(record.wall_s, 3),
        "timing": timing(record),
        "price": None if record.price is None else round(record.price, 4),
    }


def timing(record: SearchRecord) -> dict[str, float]:
    """What a search took, in seconds: on the clock, of these while a trial ran, and the sums over all trials, workers
    and GPUs. `held_gpu_s` are those that the sessions held GPUs, training or not."""
    return {
        "wall_s": round(record.wall_s, 3),
        "busy_s": round(record.busy_s, 3),
        "trial_s": round(record.trial_s, 3),
        "worker_s": round(record.worker_s, 3),
        "gpu_s": round(record.gpu_s, 3),
        "held_gpu_s": round(record.held_gpu_s, 3),
    }


def status_json(record: SearchRecord, path: Path | str) -> dict[str, Any]:
    """`search_json` and a short object for each trial; also for a search that is still running."""
    return {
        **search_json(record, path),
        "num_trials": record.num_trials,
        "finished": record.finished,
        "paused": record.paused or None,
        "halted": {"reason": record.halt_reason, "message": record.halt_message, "remedy": record.halt_remedy}
        if record.halt_reason or record.halt_message
        else None,
        "leaderboard": [_row(trial) for trial in record.leaderboard],
        "notes": record.notes,
    }


def trial_json(trial: TrialRecord) -> dict[str, Any]:
    """Everything known of one trial."""
    return {
        **_row(trial),
        "attempt": trial.attempt,
        "message": trial.message,
        "remedy": trial.remedy,
        "traceback": trial.traceback,
        "tokens": trial.tokens,
        "setup": trial.setup,
        "adapter": trial.adapter,
        "started": trial.started,
        "ended": trial.ended,
        "points": [_point(point) for point in trial.points],
    }


def _point(point: Point) -> dict[str, Any]:
    values = asdict(point)
    del values["value"]  # one of the metrics
    return {**earlier_keys.last(point.metrics), **values}


def _row(trial: TrialRecord) -> dict[str, Any]:
    return {
        "number": trial.number,
        "params": trial.params,
        "added_by": trial.added_by or None,
        "status": trial.state,
        "reason": str(trial.reason) if trial.reason else None,
        "step": trial.step,
        "max_steps": trial.max_steps,
        **earlier_keys.last_and_best(trial.metrics, trial.best_metrics),
        "metrics": trial.metrics,
        "best_metrics": trial.best_metrics,
    }


class EventLines:
    """A listener that writes every event as a line of JSON, exactly as in the ledger."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        self._stream.write(event.to_json() + "\n")
        self._stream.flush()


def dump(value: Any, ascii_only: bool = False) -> str:
    """One strict JSON document on one line: null for numbers that are not finite, unprintable characters escaped.

    ascii_only: escape every character that is not ASCII, for a stream that cannot write it.
    """
    written = json.dumps(_strict(value), allow_nan=False, ensure_ascii=ascii_only, default=str)
    if written.isprintable():
        return written
    return "".join(c if c.isprintable() else _escaped(c) for c in written)


def _escaped(c: str) -> str:
    """The character as JSON escapes it. It can only be inside a string: json has escaped those below U+0020 itself."""
    return json.dumps(c)[1:-1]


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value
