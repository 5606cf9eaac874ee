"""A search as gauges on Ray's metrics port, from where Prometheus fetches them.

The driver sets them as it hears of a report, so they cost a worker nothing. Their tags are the search's name, a
trial's number and a status; parameters, paths and names of models stay out, because that port answers to everybody.
Ray offers no way to take a gauge back: what an ended trial no longer has is set to NaN, where a graph's line ends.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from tuner.results.ledger import Event, Kind
from tuner.results.records import Point, SearchRecord, TrialRecord

Reading = Callable[[TrialRecord, Point], float | None]


def tokens_per_second(trial: TrialRecord, point: Point) -> float | None:
    """The rate since the evaluation before, validation included; since the start of the trial for the first one."""
    before = trial.points[-2] if len(trial.points) > 1 else None
    tokens = point.tokens - (before.tokens if before else 0)
    seconds = point.seconds - (before.seconds if before else 0.0)
    return tokens / seconds if tokens > 0 and seconds > 0 else None


OF_A_TRIAL: dict[str, tuple[str, Reading]] = {
    "tuner_eval_loss": ("Mean validation loss at the last evaluation.", lambda trial, point: point.eval_loss),
    "tuner_train_loss": ("Mean training loss since the evaluation before.", lambda trial, point: point.train_loss),
    "tuner_step": ("Optimizer steps taken.", lambda trial, point: point.step),
    "tuner_tokens_per_second": ("Training tokens a second, validation included.", tokens_per_second),
    "tuner_memory_bytes": ("Peak accelerator memory of the trial.", lambda trial, point: point.memory),
}
KEEPS = ("tuner_eval_loss", "tuner_step")
"""What an ended trial still has."""
STATUSES = ("running", "completed", "pruned", "failed", "stopped", "interrupted")


class Gauges:
    """Listens to a ledger. record: the search, which has taken in an event before this hears of it."""

    def __init__(self, record: SearchRecord) -> None:
        from ray.util.metrics import Gauge

        self._record = record
        self._of_a_trial = {
            name: Gauge(name, description=words, tag_keys=("search", "trial"))
            for name, (words, _) in OF_A_TRIAL.items()
        }
        self._trials = Gauge("tuner_trials", description="Trials by status.", tag_keys=("search", "status"))

    def __call__(self, event: Event) -> None:
        trial = self._record.trials.get(-1 if event.number is None else event.number)
        match event.event:
            case Kind.EVALUATION if trial is not None and trial.points:
                for name, (_, reading) in OF_A_TRIAL.items():
                    self._set(name, trial, reading(trial, trial.points[-1]))
            case Kind.ENDED | Kind.INTERRUPTED if trial is not None:
                for name in OF_A_TRIAL:
                    if name not in KEEPS and trial.points:
                        self._set(name, trial, math.nan)
                self._count()
            case Kind.SEARCH | Kind.STARTED:
                self._count()

    def _set(self, name: str, trial: TrialRecord, value: float | None) -> None:
        if value is not None:
            self._of_a_trial[name].set(float(value), {"search": self._record.name, "trial": str(trial.number)})

    def _count(self) -> None:
        record = self._record
        counted = Counter(status_of(trial) for trial in record.trials.values())
        for status in STATUSES:
            self._trials.set(counted[status], {"search": record.name, "status": status})


def status_of(trial: TrialRecord) -> str:
    return str(trial.status) if trial.status else "interrupted" if trial.interrupted else "running"
