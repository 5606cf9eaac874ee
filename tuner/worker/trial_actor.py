"""The Ray Tune trainable: one process that runs one trial after another.

The actor outlives its trials, so imports and the load of the base happen once. A trial arrives as a `TrialConfig`, and
each call of `step` returns one report: first the trial's set-up, then one evaluation a call. An error is reported as a
verdict; only where the process dies does Ray have to notice it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from tuner.contract import Evaluation, Runner, Setup
from tuner.failures import Failure, capture
from tuner.ray_cluster.resources import SLOT_CPUS, of_type
from tuner.scheduling.wire import checked, to_result
from tuner.worker.config import TrialConfig, WorkerConfig
from tuner.worker.store_sync import arrived, synced
from tuner.worker.trial_log import TrialLog

if TYPE_CHECKING:
    from tuner.worker.process_group import ProcessGroupProgram


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
            # Ray's own handler raises SystemExit in the middle of a step, and the trial would look as if it had called
            # sys.exit. A batch system that signals every process of a job must end the worker, and not the trial
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._program: Runner | None = None
        self._group: ProcessGroupProgram | None = None
        self._running = False
        self._log = TrialLog()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ends the trial that ran here and takes the next; the base stays loaded."""
        self._stop_trial()
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One report: the set-up, an evaluation, or the verdict on a fault."""
        report = capture(lambda: to_result(checked(self._advance())), Path(self._trial.assignment.folder))
        return to_result(report.verdict, report.traceback) if isinstance(report, Failure) else report

    def cleanup(self) -> None:
        self._stop_trial()
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a trial's adapter is written to the run folder when its loss improves."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load; see `save_checkpoint`."""

    def __repr__(self) -> str:
        """Not the trial's title: Ray asks once, and this process outlives the trial. See watch/dashboard_rows.py."""
        return self._worker.title

    def _take(self, config: Mapping[str, Any]) -> None:
        self._worker: WorkerConfig = config["worker"]
        self._trial: TrialConfig = config["trial"]

    def _advance(self) -> Setup | Evaluation:
        if self._running:
            assert self._program is not None
            return self._program.step()
        self._log.open(Path(self._trial.log))
        if self._program is None:
            self._program = self._make_program()
        self._running = True
        return self._program.start(self._trial.assignment)

    def _make_program(self) -> Runner:
        if self._worker.engines is not None:
            from tuner.worker.engine_client import EngineClient

            return EngineClient(self._worker.engines)
        if self._worker.processes > 1:
            from tuner.worker.process_group import process_group

            self._group = process_group(self._worker, lambda: self._trial.log)
            return self._group
        program = self._worker.program.load()(self._worker.settings, arrived(self._worker.preparation))
        return synced(program, self._worker.preparation)

    def _stop_trial(self) -> None:
        """Ends the trial that runs, if one does."""
        if self._running and self._program is not None:
            self._running = False
            stopped = capture(self._program.stop)
            if isinstance(stopped, Failure):
                # What is left of this trial must not affect the next one, which gets a new program
                logging.getLogger(__name__).error("ending %s: %s", self._trial.title, stopped.traceback)
                self._close()
        self._log.close()

    def _close(self) -> None:
        """Drops the program, and ends the processes that it has elsewhere."""
        group, self._group, self._program = self._group, None, None
        if group is not None:
            closed = capture(group.close)
            if isinstance(closed, Failure):
                logging.getLogger(__name__).error("ending a group: %s", closed.traceback)
