"""Trackers: write a search down elsewhere than in its ledger, each with its own library, one file a tracker.

base         calls the trackers, each in a thread of its own, so that none can delay or end a search
tensorboard  event files in the run folder: the default
mlflow       runs under one parent run, to MLFLOW_TRACKING_URI or MLflow's own default
wandb        runs in one group, also offline
trackio      runs in one group, locally or in a Space

A library's own environment variables say where it sends its data and hold its key or token, which tuner never reads.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable

from tuner.contract import InputError
from tuner.watch.trackers.base import CLOSE_S, CUT_S, Tracker, Tracking

TRACKERS: dict[str, tuple[str, str, str]] = {
    "tensorboard": ("tuner.watch.trackers.tensorboard:TensorBoard", "tensorboard", "tensorboard"),
    "mlflow": ("tuner.watch.trackers.mlflow:MLflow", "mlflow", "mlflow-skinny"),
    "wandb": ("tuner.watch.trackers.wandb:WeightsAndBiases", "wandb", "wandb"),
    "trackio": ("tuner.watch.trackers.trackio:Trackio", "trackio", "trackio"),
}
"""By name: the class, the module of its library, and the package that has the module."""


def require(names: Iterable[str]) -> None:
    """Raises InputError if the library of one of these trackers is not installed."""
    lacking = [name for name in names if importlib.util.find_spec(TRACKERS[name][1]) is None]
    if lacking:
        packages = " ".join(TRACKERS[name][2] for name in lacking)
        raise InputError(
            f"the library of {' and '.join(lacking)} is not installed",
            where="run.trackers",
            remedy=f"python -m pip install {packages}, or leave {'it' if len(lacking) == 1 else 'them'} out",
        )


def load_tracker(name: str) -> type[Tracker]:
    """Imports the tracker called `name`, a key of TRACKERS."""
    module, _, attribute = TRACKERS[name][0].partition(":")
    tracker: type[Tracker] = getattr(importlib.import_module(module), attribute)
    return tracker


__all__ = ["CLOSE_S", "CUT_S", "TRACKERS", "Tracker", "Tracking", "load_tracker", "require"]
