"""What travels between the driver and its workers: what a worker, a trial and an engine are told, and their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.contract import Assignment, Preparation, Program, load_program
from tuner.importing import add_folders, search_folders


@dataclass(frozen=True)
class ProgramSource:
    """A program's name, and the folders in which another process finds its module."""

    name: str
    """The name that `contract.load_program` finds it by."""
    folders: tuple[str, ...] = ()

    @classmethod
    def here(cls, name: str) -> ProgramSource:
        """The program as this process would find it."""
        return cls(name, tuple(search_folders()))

    def load(self) -> type[Program]:
        """Imports the program. Its folders come last in sys.path: Ray would put them first, and a user's `datasets.py`
        beside the search file would be imported in place of the library. Raises what `load_program` raises."""
        add_folders(self.folders)
        return load_program(self.name)


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker of a search is told once."""

    program: ProgramSource
    settings: Mapping[str, Any]
    """The program's settings as JSON."""
    preparation: Preparation
    title: str = "worker"
    """Its name in the dashboard."""
    cpus: float = 1.0
    """The CPUs that it holds."""
    gpus: float = 0.0
    """The GPUs that it holds."""
    engines: Any = None
    """The `EnginePool` in which its trials run packed; None where it trains them itself."""
    accelerator_type: str | None = None
    """Ray's name for the type of its GPU; None for any."""
    processes: int = 1
    """How many processes train a trial together. With several, each holds an equal part of `cpus` and `gpus`, and the
    worker itself only `SLOT_CPUS`."""
    strategy: str = "ddp"
    """How they do it, as in `contract.Group`."""


@dataclass(frozen=True)
class TrialConfig:
    """One trial for a worker."""

    assignment: Assignment
    title: str
    """Its name in the dashboard."""
    log: str
    """The file that takes what the libraries log."""


def trial_name(trial: Any) -> str:
    """A Ray trial's name, and its folder's: "trial-0007-1" is the first attempt at trial 7."""
    config: TrialConfig = trial.config["trial"]
    return f"trial-{config.assignment.number:04d}-{config.assignment.attempt}"


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is asked when it starts."""

    heaviest: Mapping[str, Any]
    """The parameters of the trial that takes most memory."""
    measure: bool
    """Whether to measure with how many packed trials the engine is fastest."""
    points: Sequence[Mapping[str, Any]]
    """Parameters at the extremes of the space: the engine tells whether such trials can be packed."""


@dataclass(frozen=True)
class EngineReady:
    """What an engine answers when it has started."""

    slots: int
    """How many slots to use; 0 where trials on this base cannot be packed."""
    fit: int
    """How many trials the memory has room for."""
    note: str
    """A sentence for the user on both numbers."""
    refused: str = ""
    """Why some trials of the space cannot be packed; "" where all can."""


@dataclass(frozen=True)
class Refused:
    """An engine's answer to a trial that it cannot pack, and that may be trained beside it."""

    why: str
