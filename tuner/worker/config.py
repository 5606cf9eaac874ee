"""What travels between the driver and its workers: what a worker, a trial and an engine are told, and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.contract import Assignment, Preparation


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker of a search is told once. title: its name in the dashboard. cpus, gpus: what it holds.
    engines: where its trials run packed with others (an `EnginePool`); None: it trains them itself. accelerator_type:
    of its GPU. processes, strategy: that train a trial together, and how; with several, each holds its part of `cpus`
    and `gpus`, and this one nothing of them."""

    program: str
    settings: Mapping[str, Any]
    preparation: Preparation
    title: str = "worker"
    cpus: float = 1.0
    gpus: float = 0.0
    engines: Any = None
    accelerator_type: str | None = None
    processes: int = 1
    strategy: str = "ddp"


@dataclass(frozen=True)
class TrialConfig:
    """One trial for a worker. title: how it is called in the dashboard. log: where its libraries' words go."""

    assignment: Assignment
    title: str
    log: str


def trial_name(trial: Any) -> str:
    """A Ray trial's name, and its folder's: "trial-0007-1" is the first attempt at trial 7."""
    config: TrialConfig = trial.config["trial"]
    return f"trial-{config.assignment.number:04d}-{config.assignment.attempt}"


@dataclass(frozen=True)
class EngineRequest:
    """heaviest: parameters of the trial that takes most memory. measure: whether to find out how many trials pay.
    points: parameters of trials as different as the space has them, to be asked whether they can be packed."""

    heaviest: Mapping[str, Any]
    measure: bool
    points: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class EngineReady:
    """What an engine settled on: slots to use, how many there is room for, and why in words. No slots: trials on this
    base cannot be packed. refused: why some of the space's cannot, "" where all can."""

    slots: int
    fit: int
    note: str
    refused: str = ""


@dataclass(frozen=True)
class Refused:
    """An engine's answer to a trial that it cannot pack, and that may be trained beside it."""

    why: str
