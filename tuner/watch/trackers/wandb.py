"""Writes to Weights & Biases: a run for the search, and in its group a run for each attempt at a trial.

wandb's own variables say who and where: WANDB_API_KEY, WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE (`offline` writes into
the run folder, and `wandb sync` sends it later).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.watch.trackers.base import Ending, Run, flat

PROJECT = "tuner"
"""The project if WANDB_PROJECT is not set."""


class WeightsAndBiases:
    """The tracker for Weights & Biases."""

    def __init__(self, search: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        self._search, self._folder = search, folder
        self._runs: dict[str, Any] = {}
        self._parent = self._open(search, "search", {"folder": str(folder)})

    def start(self, run: Run) -> None:
        self._runs[run.name] = self._open(run.name, "trial", flat(run.params))

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._runs[run.name].log(dict(metrics), step=step)

    def end(self, run: Run, ending: Ending) -> None:
        made = self._runs.pop(run.name)
        made.summary.update({"status": ending.status, "reason": ending.reason, **ending.best})
        made.finish(exit_code=1 if ending.status == "failed" else 0)

    def close(self, summary: Mapping[str, Any]) -> None:
        self._parent.summary.update(dict(summary))
        self._parent.finish()

    def _open(self, name: str, kind: str, config: Mapping[str, Any]) -> Any:
        import wandb

        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            group=self._search,
            job_type=kind,
            config=dict(config),
            dir=os.environ.get("WANDB_DIR", str(self._folder)),
            reinit="create_new",  # several runs are open at a time
            settings=wandb.Settings(console="off", x_disable_stats=True, disable_code=True, disable_git=True),
        )
