"""Writes to trackio: a run for the search, and in its group a run for each attempt at a trial.

trackio's own variables say where: TRACKIO_DIR on this machine, or TRACKIO_SPACE_ID.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.watch.trackers.base import Ending, Run, flat

PROJECT = "tuner"
"""The project if TRACKIO_PROJECT is not set."""


class Trackio:
    """The tracker for trackio."""

    def __init__(self, search: str, folder: Path) -> None:
        self._search = search
        self._runs: dict[str, Any] = {}
        self._parent = self._open(search, {"folder": str(folder)})

    def start(self, run: Run) -> None:
        self._runs[run.name] = self._open(f"{self._search} {run.name}", flat(run.params))

    def log(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        self._runs[run.name].log(dict(metrics), step=step)

    def end(self, run: Run, ending: Ending) -> None:
        made = self._runs.pop(run.name)
        told: dict[str, Any] = {"status": ending.status, "reason": ending.reason}
        made.log(told | ending.measured)
        made.finish()

    def close(self, summary: Mapping[str, Any]) -> None:
        self._parent.log(dict(summary))
        self._parent.finish()

    def _open(self, name: str, config: Mapping[str, Any]) -> Any:
        import trackio

        def init() -> Any:
            return trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=name,
                group=self._search,
                config=dict(config),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

        # trackio ends the current run of a context before it makes another: so each run gets a context of its own.
        return contextvars.Context().run(init)
