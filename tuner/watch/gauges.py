"""Shows a search as gauges on Ray's metrics port, from where Prometheus fetches them.

The driver sets them from its record, so they cost a worker nothing. It sets them again every few seconds, because Ray
drops a gauge that was not set for some twenty; that is also how the line of an ended trial ends. Their tags are the
search's name, a trial's number, a status, an objective's name and direction. Parameters, paths and names of models are
left out, because that port answers to everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any

from tuner.contract import Objective
from tuner.results.records import Point, SearchRecord, TrialRecord

Reading = Callable[[TrialRecord, Point], float | None]
"""Gives a gauge's value for an evaluation of a trial; None if there is none."""


def tokens_per_second(trial: TrialRecord, point: Point) -> float | None:
    """Training tokens a second since the evaluation before (for the first one, since the start of the trial), with the
    time of the validation."""
    before = trial.points[-2] if len(trial.points) > 1 else None
    tokens = point.tokens - (before.tokens if before else 0)
    seconds = point.seconds - (before.seconds if before else 0.0)
    return tokens / seconds if tokens > 0 and seconds > 0 else None


OF_A_TRIAL: dict[str, tuple[str, Reading]] = {
    "tuner_train_loss": ("Mean training loss since the evaluation before.", lambda trial, point: point.train_loss),
    "tuner_step": ("Optimizer steps taken.", lambda trial, point: point.step),
    "tuner_tokens_per_second": ("Training tokens a second, validation included.", tokens_per_second),
    "tuner_memory_bytes": ("Peak accelerator memory of the trial.", lambda trial, point: point.memory),
}
"""The gauges of a trial, besides its objectives: description and value, by name."""
EVERY_S = 5.0
"""Seconds between two turns: half of the ten after which Ray exports gauges."""
_TRIALS = "tuner_trials"
"""The gauge that counts the trials by status."""
STATUSES = ("running", "completed", "pruned", "failed", "stopped", "interrupted", "parked")


class Gauges:
    """Sets the gauges of a search; the driver's loop calls `turn` every `EVERY_S` seconds."""

    def __init__(self, record: SearchRecord) -> None:
        self._record = record
        self._ran = set[int]()
        """The numbers of the trials that ran at the last turn."""
        self._of_objectives: dict[str, Any] = {}
        """The objectives' gauges, by the objective's name."""

    @cached_property
    def _of_a_trial(self) -> dict[str, Any]:
        from ray.util.metrics import Gauge

        return {
            name: Gauge(name, description=words, tag_keys=("search", "trial"))
            for name, (words, _) in OF_A_TRIAL.items()
        }

    def _of(self, objective: Objective) -> Any:
        from ray.util.metrics import Gauge

        if objective.name not in self._of_objectives:
            about = f"{objective.title.capitalize()} at the last evaluation."
            keys = ("search", "trial", "objective", "direction")
            self._of_objectives[objective.name] = Gauge(name_of(objective), description=about, tag_keys=keys)
        return self._of_objectives[objective.name]

    @cached_property
    def _trials(self) -> Any:
        from ray.util.metrics import Gauge

        return Gauge(_TRIALS, description="Trials by status.", tag_keys=("search", "status"))

    def turn(self) -> None:
        """Sets all gauges of the search as it is now."""
        record = self._record
        running = {trial.number for trial in record.running}
        for number in running | self._ran:  # a trial that has ended since the last turn is shown once more
            self._show(record.trials[number])
        self._ran = running
        counted = Counter(trial.state for trial in record.trials.values())
        for status in STATUSES:
            self._trials.set(counted[status], {"search": record.name, "status": status})

    def _show(self, trial: TrialRecord) -> None:
        if not trial.points:
            return
        tags = {"search": self._record.name, "trial": str(trial.number)}
        for objective in self._record.objectives:
            measured = trial.metrics.get(objective.name)
            if measured is not None:
                more = {"objective": objective.name, "direction": objective.direction}
                self._of(objective).set(measured, {**tags, **more})
        for name, (_, reading) in OF_A_TRIAL.items():
            value = reading(trial, trial.points[-1])
            if value is not None:
                self._of_a_trial[name].set(float(value), tags)


def name_of(objective: Objective) -> str:
    """ "tuner_eval_loss": the name of an objective's gauge. It differs from those of all other gauges of tuner;
    dashboards find it by its tags."""
    name = f"tuner_{objective.name}"
    return f"{name}_of_program" if name in (*OF_A_TRIAL, _TRIALS) else name
