"""The part of a search that Ray Tune carries out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ray import tune
from ray.tune import Stopper
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS

from tuner.addresses import joins
from tuner.config import SearchBudget, dump_resolved
from tuner.contract import Preparation, Verdict
from tuner.disks import is_full
from tuner.driver import control, draining, probing
from tuner.driver.budgets import EVERY_S, Budgets
from tuner.driver.disk_guard import DiskGuard
from tuner.driver.dispatch import Terms, readings
from tuner.driver.plan import Plan
from tuner.driver.scheduler import TuneScheduler
from tuner.driver.stopping import Stopping
from tuner.driver.trial_manager import TrialManager
from tuner.driver.watchdog import Watchdog
from tuner.ray_cluster import nodes
from tuner.ray_cluster.resources import SLOT_CPUS, Allocation
from tuner.results.command_line import run_command_line
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.results.study_attributes import search_attributes
from tuner.scheduling.algorithms import make_algorithm
from tuner.scheduling.judge import Judge
from tuner.seeds import derive_seed
from tuner.signals import StopSignals
from tuner.space import with_params
from tuner.study.searcher import StudySearcher
from tuner.study.study import Study
from tuner.watch import gauges, job_message
from tuner.watch.dashboard_rows import TICK_S, DashboardRows
from tuner.watch.listeners import Dropped
from tuner.watch.naming import Naming
from tuner.worker.config import ProgramSource, WorkerConfig, trial_name
from tuner.worker.engine_pool import EnginePool
from tuner.worker.trial_actor import TrialActor

PAUSED_S = 0.1
"""Seconds that each turn of Ray's loop waits in a pause: with no trial under way nothing else would slow it down."""

ROWS_END_WITHIN_S = 2.0
"""Seconds for the rows of the dashboard to return at the end, on a cluster that outlives the search."""

CALLS_TOLD_S = 1.2
"""Seconds for which packed trials' workers stay after the last ending, on such a cluster: they tell Ray once a second
which of their calls to an engine have returned, and a call that Ray has not heard of is red when the engine ends."""


class _Turn(Stopper):
    """Gives the driver a turn in Ray's loop.

    As a Stopper it ends the search when the trial manager says so, but never one trial, because Ray would lose the
    reason.
    """

    def __init__(self, manager: TrialManager, scheduler: TuneScheduler, engines: EnginePool | None) -> None:
        self._manager: TrialManager | None = manager
        self._engines = engines
        self._scheduler: TuneScheduler | None = scheduler

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether Ray should end the search. Ray asks several times a second, and nowhere else does the driver get a
        turn."""
        assert self._manager is not None and self._scheduler is not None
        self._manager.tick()
        for trial_id in self._manager.hanging(self._scheduler.running):
            if self._engines is not None:
                self._engines.end(self._manager.number(trial_id))
            self._scheduler.kill(trial_id)
        if self._manager.paused and not self._manager.stopping:
            time.sleep(PAUSED_S)
        return self._manager.stopping

    def __getstate__(self) -> dict[str, object]:
        return {"_manager": None, "_scheduler": None, "_engines": None}


class _NoReport(tune.ProgressReporter):
    """Reports nothing. In a notebook Ray's own reporter clears the cell's output, with the view that is there."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None: ...


def run_trials(
    plan: Plan,
    allocation: Allocation,
    preparation: Preparation,
    *,
    folder: RunFolder,
    ledger: Ledger,
    record: SearchRecord,
    signals: StopSignals,
    disk: DiskGuard,
    engines: EnginePool | None,
) -> Verdict | None:
    """Runs the remaining trials of a search; returns the verdict that halted it, if one did. engines: for packed
    trials.

    Raises the error that ended the search, such as one of the user's space function.
    """
    experiment = plan.experiment
    lasting = joins(experiment.run.address) is not None
    ladder = plan.ladder(preparation.tokens)

    def make_study() -> Study:
        return Study(
            folder.study,
            name=folder.name,
            space=plan.space,
            sampler=experiment.search.sampler,
            num_trials=experiment.search.num_trials,
            seed=experiment.search.seed,
            recipe=plan.recipe,
            first=plan.first,
            objective=record.objective,
            attributes=search_attributes(dump_resolved(experiment), record, plan.recipe, plan.budget),
            records=record.trials.values(),
            repeats=experiment.search.seeds > 1,
        )

    history = ((t.number, readings(t)) for t in record.trials.values())
    algorithm = make_algorithm(_scheduler(experiment.scheduler, record), ladder, record.compared_by)
    judge = Judge(probing.Probed(algorithm.context) if plan.probe_at else algorithm, history)
    terms = Terms(
        seed=derive_seed(experiment.search.seed, "trial"),
        seeds=partial(derive_seed, experiment.search.seed, "trial") if experiment.search.seeds > 1 else None,
        evaluate_at=ladder.evaluate_at,
        keep_adapters=experiment.run.keep_adapters,
        save_state_at=judge.parks_at,
        check=partial(_check, plan),
        unlike=plan.program.unlike,
    )
    naming = Naming({name: p.label or name for name, p in plan.program.PARAMETERS.items()})
    stop = Stopping(record, disk, signals.requested, signals.uninterrupted)
    manager = TrialManager(
        folder=folder, ledger=ledger, record=record, study=make_study, judge=judge, terms=terms, naming=naming,
        disk=disk, watchdog=Watchdog(experiment.run.hang_timeout), stop=stop,
    )  # fmt: skip
    rows = DashboardRows(
        folder, ledger, title=naming.title, objective=record.compared_by.name,
        about=(f"search {folder.name}", f"show   {run_command_line(folder.path, 'status', folder.name)}"),
    )  # fmt: skip
    ledger.listen(Dropped("a row of the Ray dashboard", rows))
    manager.every(TICK_S, Dropped("a row of the Ray dashboard", rows.tick))
    manager.write_pending_endings()
    manager.every(control.EVERY_S, control.Control(folder, manager, ledger, record, plan).turn)
    manager.every(gauges.EVERY_S, Dropped("the gauges", gauges.Gauges(record).turn))
    manager.every(job_message.EVERY_S, Dropped("the job's message", job_message.JobMessage(record).turn))
    note = partial(_note, ledger)
    manager.every(nodes.LOOK_EVERY_S, nodes.Nodes(experiment.run.address, stop.fail_with, note).turn)
    if plan.probe_at:
        manager.every(probing.EVERY_S, probing.Probing(record, ledger, 2 * allocation.trials).turn)
    if (budget := experiment.search.budget) != SearchBudget():
        budgets = Budgets(record, ledger, budget, partial(plan.foresee, ladder, allocation.trials))
        ledger.listen(budgets.heard)
        manager.every(EVERY_S, budgets.turn)
    scheduler = TuneScheduler(judge, manager)
    if record.num_trials <= record.num_ended:
        return None
    manager.every(draining.EVERY_S, draining.Draining(manager, scheduler, note, engines).turn)
    settings = experiment.settings.model_dump(mode="json")
    worker = WorkerConfig(
        ProgramSource.here(experiment.program), settings, preparation, f"worker of {folder.name}",
        allocation.cpus, allocation.gpus,
        accelerator_type=experiment.resources.accelerator_type, processes=allocation.processes,
        strategy=experiment.resources.strategy,
    )  # fmt: skip
    if engines is not None:
        worker = replace(worker, engines=engines, cpus=SLOT_CPUS, gpus=0.0, accelerator_type=None)
        # Tune gives its actors a runtime environment with one variable, for PyTorch Lightning (ray#28197). To set that
        # up Ray starts a second interpreter that imports Ray: 0.5 s of CPU for each actor, and here every slot has one
        DEFAULT_ENV_VARS.pop("PL_DISABLE_FORK", None)
    tuner = tune.Tuner(
        TrialActor,
        param_space={"worker": worker},
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(manager, CALLS_TOLD_S if engines is not None and lasting else 0.0),
            scheduler=scheduler,
            num_samples=-1,  # the trial manager says when there are no more: trials are tried again, and may be added
            max_concurrent_trials=allocation.trials,
            reuse_actors=True,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"session-{record.sessions}",
            storage_path=str(folder.tune),
            verbose=0,
            progress_reporter=_NoReport(),
            stop=_Turn(manager, scheduler, engines),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial saves its adapter itself
        ),
    )
    signals.defer()
    try:
        tuner.fit()
    except Exception as error:
        lost = disk.lost(error)
        if lost is not None:
            stop.fail_with(lost)
        elif stop.failure is None and not (is_full(error) and manager.complete):
            raise  # what is not raised: no room for Ray's own last snapshot, which nobody reads
    finally:
        manager.close()
        if lasting:
            Dropped("a row of the Ray dashboard", rows.clear)(ROWS_END_WITHIN_S)
    if stop.failure is not None:
        raise stop.failure
    return stop.halt


def _note(ledger: Ledger, text: str) -> None:
    ledger.append(Kind.NOTE, details={"text": text})


def _check(plan: Plan, params: Mapping[str, Any]) -> None:
    with_params(plan.experiment.settings, params, plan.program)
    if why := plan.spreads(params):
        raise why


def _scheduler(settings: Any, record: SearchRecord) -> Any:
    """The scheduler's settings. Where what the search makes better is measured at the end alone, a trial whose loss is
    flat goes on to its end."""
    return settings if record.objective is record.compared_by else settings.model_copy(update={"flatline": None})
