"""Writes to MLflow: a run for the search, and below it a run for each attempt at a trial.

MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where; MLflow's own defaults apply.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.watch.trackers.base import Ending, Run, flat

EXPERIMENT = "tuner"
"""The experiment if MLFLOW_EXPERIMENT_NAME is not set."""
_STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
"""MLflow's status for a trial's."""


class MLflow:
    """The tracker for MLflow."""

    def __init__(self, search: str, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        self._metric, self._param, self._tag = Metric, Param, RunTag
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._parent = self._open(search, {"tuner.folder": str(folder)})
        self._runs: dict[str, str] = {}

    def start(self, run: Run) -> None:
        self._runs[run.name] = made = self._open(run.name, {"mlflow.parentRunId": self._parent})
        params = [self._param(name, str(value)) for name, value in flat(run.params).items()]
        self._client.log_batch(made, params=params)

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._runs[run.name], [self._metric(n, v, now, step) for n, v in metrics.items()])

    def end(self, run: Run, ending: Ending) -> None:
        made = self._runs.pop(run.name)
        self._client.set_tag(made, "tuner.ending", f"{ending.status}: {ending.reason}")
        for name, value in ending.measured.items():
            self._client.log_metric(made, name, value)
        self._client.set_terminated(made, _STATUS.get(ending.status, "KILLED"))

    def close(self, summary: Mapping[str, Any]) -> None:
        for name, value in summary.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._client.log_metric(self._parent, name, value)
            else:
                self._client.set_tag(self._parent, f"tuner.{name}", str(value))
        self._client.set_terminated(self._parent)

    def _open(self, name: str, tags: Mapping[str, str]) -> str:
        made = self._client.create_run(self._experiment, run_name=name, tags=dict(tags))
        return str(made.info.run_id)
