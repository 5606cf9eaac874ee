"""Ray's scheduler: every report of a trial goes through it.

It only adapts: `scheduling/` makes the decisions, and this is the one file that knows Ray's trial objects and private
members. The listener is told every decision before Ray is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tuner.contract import Evaluation, Reason, Setup, Verdict
from tuner.error_text import last_line
from tuner.scheduling.algorithms import Candidate, Decision
from tuner.scheduling.judge import Judge
from tuner.scheduling.rules import Reading
from tuner.scheduling.wire import REPORT, TRACEBACK

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class Listener(Protocol):
    """Whom the scheduler tells what was measured and decided: the driver's trial manager."""

    def number(self, trial_id: str) -> int:
        """The number of the trial: the same for every attempt at it, so that it is compared once."""
        ...

    def known(self, trial_id: str) -> tuple[int, list[Reading]]:
        """The last step on record of this trial over all of its attempts, and its curve up to there."""
        ...

    def set_up(self, trial_id: str, setup: Setup) -> None: ...

    def evaluated(self, trial_id: str, evaluation: Evaluation, resource: int, decision: Decision) -> None: ...

    def repeated(self, trial_id: str) -> None:
        """An evaluation that is on record came again, from an attempt that resumed from a state before it."""
        ...

    def ended(self, trial_id: str, verdict: Verdict, traceback: str = "") -> None: ...

    def spares(self, trial_id: str) -> bool:
        """Whether this trial is never stopped at a rung. Its values count there all the same."""
        ...

    def drains(self, trial_id: str) -> bool:
        """Whether this trial's node is about to go. Asked when the trial has reported; where it is so, the attempt is
        given up, the next one begins elsewhere, and the worker is to be ended."""
        ...

    def was_stopped(self, trial_id: str) -> bool:
        """Whether a person ended this trial while it ran, and Ray has to be told."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the search is paused: a trial waits after its report."""
        ...


class TuneScheduler(FIFOScheduler):
    """Asks a judge about every evaluation of a search, and tells Ray and the listener what becomes of its trial."""

    def __init__(self, judge: Judge, listener: Listener) -> None:
        super().__init__()
        self._judge, self._listener = judge, listener
        self._live: dict[str, Trial] = {}
        self._held: set[str] = set()
        self._dead: set[str] = set()

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        self._live[trial.trial_id] = trial

    def running(self) -> list[str]:
        """The trials that a worker trains now; not those that wait for a worker, or for the end of a pause."""
        live = self._live.items()
        return [name for name, trial in live if trial.status == "RUNNING" and name not in self._held]

    def actors(self) -> dict[str, Any]:
        """The workers of the trials that run, held ones included."""
        found = {name: t.temporary_state.ray_actor for name, t in self._live.items() if t.status == "RUNNING"}
        return {name: actor for name, actor in found.items() if actor is not None}

    def is_held(self, trial_id: str) -> bool:
        """Whether a trial waits for the end of a pause."""
        return trial_id in self._held

    def kill(self, trial_id: str) -> None:
        """Kills a trial's worker; Ray's loop then finds it dead."""
        actor = self._live[trial_id].temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)
            self._dead.add(trial_id)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Judges one report of a worker: its set-up, an evaluation, or a fault."""
        report = result[REPORT]
        if self._listener.was_stopped(trial.trial_id):
            return TrialScheduler.STOP
        if isinstance(report, Setup):
            self._listener.set_up(trial.trial_id, report)
            return self._go_on(trial)
        if isinstance(report, Verdict):
            self._listener.ended(trial.trial_id, report, result.get(TRACEBACK, ""))
            return TrialScheduler.STOP
        step, curve = self._listener.known(trial.trial_id)
        if report.step <= step:
            return self._repeated(trial, report)
        resource = self._resource(report)
        curve.append(Reading(resource, report.metrics.get(self._judge.objective.name)))
        number, spared = self._listener.number(trial.trial_id), self._listener.spares(trial.trial_id)
        decision = self._judge.decide(Candidate(number, curve, finished=report.done, spared=spared))
        self._listener.evaluated(trial.trial_id, report, resource, decision)
        # Ray is told to stop a parked trial too, which goes on in another attempt: Ray's own pause would keep the actor
        return self._go_on(trial) if decision.goes_on else TrialScheduler.STOP

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """The trial that waits for a worker. Ray's own method searches all trials of the search for it, twice a report.

        Ray asks at every turn of its loop, so this is also where requests to stop and to resume trials are acted on.
        """
        self._obey(tune_controller)
        return next((t for t in tune_controller.get_live_trials() if t.status in ("PENDING", "PAUSED")), None)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Forgets a trial that is over."""
        self._forget(trial)
        _empty(trial)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        self._forget(trial)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Notes that a worker died without a report: its process was killed, or its node is gone."""
        error = _error_text(trial)
        message = f"its worker died ({_cause(error)})" if error.strip() else "its worker died"
        self._listener.ended(trial.trial_id, Verdict(Reason.INFRASTRUCTURE, message), error)
        self._forget(trial)

    def _repeated(self, trial: Trial, evaluation: Evaluation) -> str:
        """An attempt that resumed from a state before the trial's last evaluation reports that one again. It was judged
        the first time, and is not judged again."""
        self._listener.repeated(trial.trial_id)
        if not evaluation.done:
            return self._go_on(trial)
        self._listener.ended(trial.trial_id, Verdict(Reason.BUDGET, "budget"))
        return TrialScheduler.STOP

    def _go_on(self, trial: Trial) -> str:
        """Lets a trial train on; in a pause has it wait: Ray then does not call its worker."""
        if self._listener.drains(trial.trial_id):
            # Not STOP: Ray would give the worker to the next trial. Ray finds it dead at its next call
            self.kill(trial.trial_id)
            return TrialScheduler.CONTINUE
        if not self._listener.paused:
            return TrialScheduler.CONTINUE
        self._held.add(trial.trial_id)
        return TrialScheduler.NOOP

    def _obey(self, tune_controller: TuneController) -> None:
        """Has Ray stop the trials that a person ended, and lets those go on that waited for the end of a pause.

        A trial is stopped only once Ray calls it running: one that is stopped while its actor starts or is reset stays
        in Ray's list of trials that start.
        """
        due = self._held if not self._listener.paused else self._held & self._dead
        due = due | {trial_id for trial_id in self._live if self._listener.was_stopped(trial_id)}
        if not due:
            return
        # Ray wraps its controller in an object that warns at each use of these methods
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        for trial in [trial for trial in controller.get_live_trials() if trial.trial_id in due]:
            if self._listener.was_stopped(trial.trial_id):
                if trial.status == trial.RUNNING:
                    controller.stop_trial(trial)
            else:
                self._held.discard(trial.trial_id)
                controller._schedule_trial_train(trial)

    def _resource(self, evaluation: Evaluation) -> int:
        """How far a trial is, in steps or tokens of the budget: the budget times the share of its own steps that it has
        done. With a budget in steps that is the step itself; with one in tokens, trials of different batch sizes come
        to the same rungs."""
        return round(self._judge.max_t * evaluation.step / max(1, evaluation.max_steps))

    def _forget(self, trial: Trial) -> None:
        self._live.pop(trial.trial_id, None)
        self._held.discard(trial.trial_id)
        self._dead.discard(trial.trial_id)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as an empty scheduler: Ray pickles its tuner, nobody reads that, and the listener holds open
        files."""
        return FIFOScheduler, ()


def _empty(trial: Trial) -> None:
    """Drops Ray's running means and last result of a trial that is over: 27 kB for each in a list that only grows, and
    nobody reads them."""
    metadata = trial.run_metadata
    metadata.metric_analysis, metadata.metric_n_steps, metadata.last_result = {}, {}, {}


def _error_text(trial: Trial) -> str:
    """Ray's text on a worker's death. Read from the driver's own copy: the one in storage is written later."""
    name = trial.run_metadata.error_filename
    path = Path(trial.local_path or "", name) if name else None
    return path.read_text(encoding="utf-8", errors="replace") if path and path.is_file() else ""


def _cause(error: str) -> str:
    """The exception at the end of Ray's text, without Ray's list of common causes; 240 characters at most."""
    return last_line(error).split(" Some common causes")[0][:240]
