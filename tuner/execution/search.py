"""A search from start to end."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.apart import Apart
from tuner.config import Experiment, dump_resolved, load_resolved
from tuner.contract import Fault, InputError, Preparation, Status, Verdict
from tuner.execution.cluster import dashboard_url, drop_handlers, ray_session
from tuner.execution.nodes import offered, require_nodes
from tuner.execution.plan import Plan, make_plan
from tuner.execution.resources import Resources, decide
from tuner.execution.signals import StopRequested, StopSignals
from tuner.results import storage
from tuner.results.adapters import write_best
from tuner.results.folder import RunFolder, RunLock, create_run, default_name, open_run
from tuner.results.ledger import Event, Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.results.versions import versions
from tuner.seeds import derive_seed
from tuner.space import with_params

Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a search ended. exit_code: 0 done, 1 no usable trial or halted, 3 done with failed trials, 130 or 143 after
    a signal. path: the run folder."""

    record: SearchRecord
    path: Path
    exit_code: int
    signal: int | None = None


def run_search(experiment: Experiment, listeners: Sequence[Observer] = ()) -> Outcome:
    """Runs a search in a new run folder. `listeners` hear every event after it is on disk.

    Raises InputError for what the user wrote; nothing is left behind then.
    """
    plan = make_plan(experiment)
    folder = create_run(experiment.storage_path, experiment.run.name or default_name())
    try:
        lock = RunLock(folder)
        _write_settings(folder, experiment)
        return _Search(plan, folder, lock, listeners).run()
    except (InputError, KeyboardInterrupt, OSError):
        if not folder.record().trials:  # nothing ran: give the name back
            shutil.rmtree(folder.path, ignore_errors=True)
            storage.forget(folder.path)
        raise


def resume_search(
    storage_path: Path,
    name: str,
    listeners: Sequence[Observer] = (),
    num_trials: int | None = None,
    address: str | None = None,
) -> Outcome:
    """Goes on with a search where its ledger ends: finished trials stay, cut-off ones run again, new ones follow.

    num_trials: a new total; None for the one it had. address: another cluster than before. Raises InputError where
    there is no such run, where it is being written by another driver, or where num_trials is less than what has run.
    """
    folder = open_run(storage_path, name)
    experiment = _read_settings(folder)
    if num_trials is not None:
        have = len(folder.record().trials)
        if num_trials < have:
            raise InputError(
                f"the search already has {have} trials",
                where="--num-trials",
                expected=f"{have} or more",
            )
        search = experiment.search.model_copy(update={"num_trials": num_trials})
        experiment = replace(experiment, search=search)
    place = {"name": folder.name, "storage_path": str(folder.path.parent), "address": address or experiment.run.address}
    run = experiment.run.model_copy(update=place)
    experiment = replace(experiment, run=run)
    lock = RunLock(folder)
    return _Search(make_plan(experiment), folder, lock, listeners).run()


class _Search:
    """One session of a search: new or resumed, it is the same."""

    def __init__(self, plan: Plan, folder: RunFolder, lock: RunLock, listeners: Sequence[Observer]) -> None:
        self._plan, self._experiment, self._folder, self._lock = plan, plan.experiment, folder, lock
        self._record = folder.record()
        self._ledger = Ledger(folder.ledger, [self._record.apply, *listeners])
        self._signals = StopSignals()
        self._mirror = storage.Mirror(folder.path)

    def run(self) -> Outcome:
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self._mirror.close)
            stack.callback(self._ledger.close)
            stack.enter_context(self._signals)
            halt: Verdict | None = None
            failure: Exception | None = None
            try:
                halt = self._carry_out(stack)
            except StopRequested:
                pass
            except Fault as fault:
                halt = fault.verdict
            except Exception as error:
                # A second signal may end Ray's own calls in any way; what was reported is in the ledger by then.
                failure = error if self._signals.number is None else None
            self._signals.mute()
            if failure is not None and not self._record.trials:
                raise failure
            outcome = self._finish(halt, failure)
            if failure is not None:
                raise failure
            return outcome

    def _carry_out(self, stack: ExitStack) -> Verdict | None:
        settings = self._experiment.settings.model_dump(mode="json")
        log = self._folder.logs / "prepare.log"
        preparing = Apart(self._experiment.program, "prepare", settings, str(self._folder.data), log=log)
        stack.callback(preparing.close)
        stack.enter_context(ray_session(self._experiment.run.address, self._folder.logs / "driver.log"))
        self._signals.listen()
        resources = decide(
            self._experiment.run,
            offered(self._experiment.run.accelerator_type),
            self._experiment.search.num_trials,
            self._plan.trials_per_gpu,
            learns=self._plan.learns,
        )
        different = require_nodes(self._folder.path, self._experiment.program)
        packing = self._start_engines(resources, settings, stack)
        self._ledger.append(Kind.SEARCH, details=self._opening(resources))
        notes = [*self._plan.notes, *different]
        if url := dashboard_url():
            notes.append(f"the trials in the Ray dashboard: {url} (its token: ray get-auth-token)")
        for note in notes:
            self._ledger.append(Kind.NOTE, details={"text": note})
        made = preparing.result()
        preparation = Preparation(**{**made, "notes": tuple(made["notes"])})
        self._require_same_data(preparation)
        self._mirror.data()
        self._ledger.append(Kind.PREPARED, details={"facts": dict(preparation.facts), "notes": list(preparation.notes)})
        from tuner.execution.tune import run_trials  # imports ray.tune: only once there is something to run

        drop_handlers()
        if packing is not None:
            packing, resources = self._settle(packing, resources, preparation)
        return run_trials(
            self._plan, resources, preparation, folder=self._folder, ledger=self._ledger, record=self._record,
            signals=self._signals, engines=packing,
        )  # fmt: skip

    def _start_engines(self, resources: Resources, settings: dict[str, Any], stack: ExitStack) -> Any:
        """Engines for packed trials, which import what they need while the rows are still being prepared."""
        if self._plan.trials_per_gpu == 1:
            return None
        from tuner.execution.engines import engines

        made = engines(
            resources,
            program=self._experiment.program,
            settings=settings,
            mixed=self._plan.mixed,
            accelerator_type=self._experiment.run.accelerator_type,
        )
        return stack.enter_context(made)

    def _settle(self, packing: Any, resources: Resources, preparation: Preparation) -> tuple[Any, Resources]:
        """Makes the engines ready, and takes no more trials than they say."""
        wanted, auto = resources.slots, self._plan.trials_per_gpu == "auto"
        begun = packing.begin(preparation, heaviest=self._plan.heaviest, measure=auto)
        resources = resources.settled(min(engine.slots for engine in begun))
        notes = dict.fromkeys(engine.note for engine in begun if engine.note)
        if not auto and resources.slots < wanted and self._experiment.run.strict:
            raise InputError(
                f"{resources.slots} trials fit on a GPU, not {wanted}",
                where="scheduler.trials_per_gpu",
                expected=f"at most {resources.slots}, or auto",
                remedy="ask for fewer, or leave out --strict to go on with what fits",
            )
        for note in notes:
            self._ledger.append(Kind.NOTE, details={"text": note})
        return replace(packing, preparation=preparation), resources

    def _require_same_data(self, preparation: Preparation) -> None:
        before, now = (facts.get("data_fingerprint") for facts in (self._record.facts, preparation.facts))
        if self._record.trials and before and before != now:
            raise InputError(
                "the data is not what it was when the search began: old and new losses cannot be compared",
                where=str(self._folder.path),
                expected=f"the files of the first session (fingerprint {before}, now {now})",
                remedy="put them back, or start a new search",
            )

    def _opening(self, resources: Resources) -> dict[str, Any]:
        experiment = self._experiment
        return {
            "name": self._folder.name,
            "num_trials": experiment.search.num_trials,
            "workers": resources.workers,
            "slots": resources.slots,
            "cpus_per_trial": resources.cpus,
            "gpus_per_trial": resources.gpus,
            "recipe": dict(self._plan.recipe),
        }

    def _finish(self, halt: Verdict | None, failure: Exception | None) -> Outcome:
        record, stopped = self._record, self._signals.number
        resolved = json.loads(self._folder.resolved.read_text())
        if record.best is not None:
            self._mirror.fetch(record.best.adapter)
            train = fixed_experiment(self._experiment, record.best.params)
            if write_best(self._folder, record, train=train, resolved=resolved) is None:
                text = f"the adapter of trial {record.best.number} is not where it was saved: there is no best/"
                self._ledger.append(Kind.NOTE, details={"text": text})
        code = exit_code(record, halt, stopped)
        self._ledger.append(
            Kind.FINISHED,
            reason=str(halt.reason) if halt else None,
            details={
                "outcome": "interrupted" if stopped else "halted" if halt else "failed" if failure else "done",
                "message": halt.message if halt else str(failure or ""),
                "remedy": halt.remedy if halt else "",
                "exit_code": code,
            },
        )
        return Outcome(record, self._folder.path, code, stopped)


def exit_code(record: SearchRecord, halt: Verdict | None, stopped: int | None) -> int:
    """0 done, 1 no usable trial or a set-up fault, 3 done with failed trials, 128 + signal."""
    if stopped is not None:
        return 128 + stopped
    if halt is not None or record.best is None:
        return 1
    failed = any(t.status is Status.FAILED for t in record.ended)
    return 3 if failed else 0


def fixed_experiment(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment that trains one point again: every setting of the program, and no search."""
    settings = with_params(experiment.settings, params, experiment.program_class)
    return {
        **settings.model_dump(mode="json"),
        "search": {"space": {"parameters": {}}, "num_trials": 1, "seed": experiment.search.seed},
        "scheduler": {"kind": "none"},
        "run": {"program": experiment.program},
    }


def _write_settings(folder: RunFolder, experiment: Experiment) -> None:
    folder.experiment.write_text(experiment.text, encoding="utf-8")
    about = {
        "versions": versions(),
        "seeds": {purpose: derive_seed(experiment.search.seed, purpose) for purpose in ("sampler", "trial")},
        "command": [Path(sys.executable).name, "-m", "tuner", *sys.argv[1:]],
    }
    resolved = {**dump_resolved(experiment), "about": about}
    folder.resolved.write_text(json.dumps(resolved, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _read_settings(folder: RunFolder) -> Experiment:
    try:
        resolved = json.loads(folder.resolved.read_text(encoding="utf-8"))
        del resolved["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot be read ({error})",
            where=str(folder.resolved),
            expected="the settings that the search was started with",
            remedy=f"start it anew from {folder.experiment} under another name",
        ) from error
    return load_resolved(resolved, str(folder.resolved))
