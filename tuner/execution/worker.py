"""The Ray Tune trainable: one process that runs one trial after another.

The actor outlives its trials: imports and the base are paid for once. A trial arrives as a `TrialConfig`, and each
call of `step` answers with one report: the trial's set-up first, then an evaluation a call. Whatever goes wrong is
reported in words; only a process that dies leaves Ray to find out.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune

from tuner.contract import Assignment, Evaluation, Preparation, Program, Setup, load_program
from tuner.execution.carrying import arrived, carried
from tuner.execution.resources import SLOT_CPUS
from tuner.failures import Failure, capture
from tuner.redaction import LogFile
from tuner.scheduling.wire import checked, to_result


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker of a search is told once. title: its name in the dashboard. cpus, gpus: what it holds.
    engines: where its trials run packed with others (an `Engines`); None: it trains them itself. accelerator_type:
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


class TrialActor(tune.Trainable):
    """Runs trials. Its config is {"worker": WorkerConfig, "trial": TrialConfig}."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Resources from the config; `tune.with_resources` would rename the class in the dashboard."""
        worker: WorkerConfig = config["worker"]
        if worker.processes > 1:
            return tune.PlacementGroupFactory([{"CPU": SLOT_CPUS}])
        bundle = {
            "CPU": worker.cpus,
            **({"GPU": worker.gpus} if worker.gpus else {}),
            **of_type(worker.accelerator_type),
        }
        return tune.PlacementGroupFactory([bundle])

    def setup(self, config: dict[str, Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler raises SystemExit, in the middle of a step, and this trial would look like one that
            # called sys.exit. A batch system that signals every process of a job takes the worker, and not the trial
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._program: Program | None = None
        self._running = False
        self._log: logging.Handler | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ends the trial that was here and takes the next; the base stays."""
        self._leave()
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One report: the set-up, an evaluation, or the verdict on a fault."""
        report = capture(lambda: to_result(checked(self._advance())), Path(self._trial.assignment.folder))
        return to_result(report.verdict, report.traceback) if isinstance(report, Failure) else report

    def cleanup(self) -> None:
        self._leave()
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a trial's adapter is written to the run folder when its loss improves."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load; see `save_checkpoint`."""

    def __repr__(self) -> str:
        """Not the trial's title: Ray asks once, and this process outlives the trial. See plaques.py."""
        return self._worker.title

    def _take(self, config: Mapping[str, Any]) -> None:
        self._worker: WorkerConfig = config["worker"]
        self._trial: TrialConfig = config["trial"]

    def _advance(self) -> Setup | Evaluation:
        if self._running:
            assert self._program is not None
            return self._program.step()
        self._listen()
        if self._program is None:
            self._program = self._make_program()
        self._running = True
        return self._program.start(self._trial.assignment)

    def _make_program(self) -> Any:
        if self._worker.engines is not None:
            from tuner.execution.remote import RemoteProgram

            return RemoteProgram(self._worker.engines)
        if self._worker.processes > 1:
            from tuner.execution.ranks import ranks

            return ranks(self._worker, lambda: self._trial.log)
        program = load_program(self._worker.program)(self._worker.settings, arrived(self._worker.preparation))
        return carried(program, self._worker.preparation)

    def _leave(self) -> None:
        if self._running and self._program is not None:
            self._running = False
            stopped = capture(self._program.stop)
            if isinstance(stopped, Failure):
                # What could not be taken away must not meet the next trial: it gets a program of its own.
                logging.getLogger(__name__).error("ending %s: %s", self._trial.title, stopped.traceback)
                self._close()
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
            self._log = None

    def _close(self) -> None:
        """Lets go of the program, and of the processes that it has elsewhere."""
        program: Any = self._program
        self._program = None
        if program is not None and self._worker.processes > 1:
            closed = capture(program.close)
            if isinstance(closed, Failure):
                logging.getLogger(__name__).error("ending a group: %s", closed.traceback)

    def _listen(self) -> None:
        """Sends what the libraries beneath say while this trial runs to its own file."""
        logging.captureWarnings(True)
        Path(self._trial.log).parent.mkdir(parents=True, exist_ok=True)  # on another node than the driver's
        self._log = LogFile(self._trial.log)
        logging.getLogger().addHandler(self._log)


def of_type(accelerator_type: str | None) -> dict[str, float]:
    """What has to be asked of Ray to land on a node with such a GPU; a node has one of it, so a thousand may."""
    return {f"accelerator_type:{accelerator_type}": 0.001} if accelerator_type else {}


def trial_name(trial: Any) -> str:
    """A Ray trial's name, and its folder's: "trial-0007-1" is the first attempt at trial 7."""
    config: TrialConfig = trial.config["trial"]
    return f"trial-{config.assignment.number:04d}-{config.assignment.attempt}"


@dataclass(frozen=True)
class Naming:
    """Names a trial by its number and its parameters: "trial 7 lr=3.1e-4 r=16"."""

    labels: Mapping[str, str] = field(default_factory=dict)

    def title(self, number: int, params: Mapping[str, Any]) -> str:
        words = [f"{self.labels.get(name, name)}={_short(value)}" for name, value in params.items()]
        return " ".join([f"trial {number}", *words])


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e") if value and abs(value) < 1e-2 else f"{value:.3g}"
