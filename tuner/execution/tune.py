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

from tuner.contract import Preparation, Verdict
from tuner.disks import is_full
from tuner.execution.books import Books, Terms, readings
from tuner.execution.control import Control
from tuner.execution.disk import Room
from tuner.execution.draining import Draining
from tuner.execution.engines import Engines
from tuner.execution.nodes import Nodes
from tuner.execution.plan import Plan
from tuner.execution.plaques import Plaques
from tuner.execution.resources import SLOT_CPUS, Resources
from tuner.execution.signals import StopSignals
from tuner.execution.watchdog import Watchdog
from tuner.execution.worker import Naming, TrialActor, WorkerConfig, trial_name
from tuner.results.command_line import run_command_line
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.scheduling.asha import Asha
from tuner.scheduling.rules import make_rules
from tuner.seeds import derive_seed
from tuner.space import with_params
from tuner.study.searcher import StudySearcher
from tuner.study.study import Study
from tuner.watch.gauges import Gauges
from tuner.watch.listeners import Dropped

PAUSED_S = 0.1
"""Ray's loop waits for events of trials, and with none under way it would turn without a rest."""


class _Turn(Stopper):
    """The driver's turn in Ray's loop. It ends the search when the books say so; never a single trial, because Ray
    would lose the reason."""

    def __init__(self, books: Books, scheduler: Asha, engines: Engines | None) -> None:
        self._books: Books | None = books
        self._engines = engines
        self._scheduler: Asha | None = scheduler

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Ray asks several times a second; it is the one place in its loop where the driver gets a turn."""
        assert self._books is not None and self._scheduler is not None
        self._books.tick()
        for trial_id in self._books.hanging(self._scheduler.running):
            if self._engines is not None:
                self._engines.end(int(self._books.key(trial_id)))
            self._scheduler.kill(trial_id)
        if self._books.paused and not self._books.stopping:
            time.sleep(PAUSED_S)
        return self._books.stopping

    def __getstate__(self) -> dict[str, object]:
        return {"_books": None, "_scheduler": None, "_engines": None}


def run_trials(
    plan: Plan,
    resources: Resources,
    preparation: Preparation,
    *,
    folder: RunFolder,
    ledger: Ledger,
    record: SearchRecord,
    signals: StopSignals,
    room: Room,
    engines: Engines | None,
) -> Verdict | None:
    """Runs what is left of a search; returns the verdict that halted it, if one did. engines: where trials are packed.

    Raises whatever kept the study from suggesting (a space function of the user's, say).
    """
    experiment = plan.experiment
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
            records=record.trials.values(),
        )

    terms = Terms(
        seed=derive_seed(experiment.search.seed, "trial"),
        evaluate_at=ladder.evaluate_at,
        keep_adapters=experiment.run.keep_adapters,
        check=partial(_check, plan),
    )
    plaques = Plaques([f"search {folder.name}", f"show   {run_command_line(folder.path, 'status', folder.name)}"])
    naming = Naming({name: p.label or name for name, p in plan.program.PARAMETERS.items()})
    books = Books(
        folder=folder, ledger=ledger, record=record, study=make_study, terms=terms, naming=naming, plaques=plaques,
        room=room, watchdog=Watchdog(experiment.run.hang_timeout),
    )  # fmt: skip
    books.stop_when(signals.requested, signals.whole)
    books.settle()
    books.every_turn(Control(folder, books, ledger, record, plan).turn)
    books.every_turn(Dropped("the gauges", Gauges(record).turn))
    note = partial(_note, ledger)
    books.every_turn(Nodes(experiment.run.address, books.give_up, note).turn)
    before, after = make_rules(experiment.scheduler, ladder.max_t)
    scheduler = Asha(
        ladder,
        before=before,
        after=after,
        listener=books,
        history=[(str(t.number), readings(t)) for t in record.trials.values()],
    )
    if record.num_trials <= record.num_ended:
        return None
    books.every_turn(Draining(books, scheduler, note, engines).turn)
    settings = experiment.settings.model_dump(mode="json")
    worker = WorkerConfig(
        experiment.program, settings, preparation, f"worker of {folder.name}", resources.cpus, resources.gpus,
        accelerator_type=experiment.run.accelerator_type, processes=resources.processes,
        strategy=experiment.scheduler.strategy,
    )  # fmt: skip
    if engines is not None:
        worker = replace(worker, engines=engines, cpus=SLOT_CPUS, gpus=0.0, accelerator_type=None)
        # For PyTorch Lightning's sake (ray#28197) Tune gives its actors a variable in an environment of their own, and
        # Ray starts what has one twice: before the worker's interpreter comes one that imports Ray to set it up. It is
        # 0.5 s of CPU, and here every slot has such an actor
        DEFAULT_ENV_VARS.pop("PL_DISABLE_FORK", None)
    tuner = tune.Tuner(
        TrialActor,
        param_space={"worker": worker},
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(books),
            scheduler=scheduler,
            num_samples=-1,  # the books say when there are no more: trials are tried again, and may be added
            max_concurrent_trials=resources.trials,
            reuse_actors=True,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=f"session-{record.sessions}",
            storage_path=str(folder.tune),
            verbose=0,
            stop=_Turn(books, scheduler, engines),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial saves its adapter itself
        ),
    )
    signals.defer()
    try:
        tuner.fit()
    except Exception as error:
        lost = room.lost(error)
        if lost is not None:
            books.give_up(lost)
        elif books.failure is None and not (is_full(error) and books.complete):
            raise  # else Ray has no room for its own last snapshot, which nobody reads
    finally:
        books.close()
    if books.failure is not None:
        raise books.failure
    return books.halt


def _note(ledger: Ledger, text: str) -> None:
    ledger.append(Kind.NOTE, details={"text": text})


def _check(plan: Plan, params: Mapping[str, Any]) -> None:
    with_params(plan.experiment.settings, params, plan.program)
    if why := plan.spreads(params):
        raise why
