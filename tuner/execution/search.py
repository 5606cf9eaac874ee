"""A search from start to end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuner import __version__
from tuner.apart import Apart
from tuner.config import Experiment
from tuner.contract import Fault, InputError, Preparation, Status, Verdict
from tuner.disks import is_full
from tuner.execution.cluster import dashboard_url, drop_handlers, import_ray, joins, ray_session
from tuner.execution.disk import Room
from tuner.execution.nodes import RayGone, offered, require_nodes
from tuner.execution.pinning import pinned
from tuner.execution.plan import Plan, make_plan
from tuner.execution.resources import Resources, decide
from tuner.execution.settings import digest_of, fixed_experiment, read_settings, write_settings
from tuner.execution.signals import StopRequested, StopSignals
from tuner.execution.token import guard_token
from tuner.results import storage
from tuner.results.adapters import write_best
from tuner.results.command_line import resume_command_line
from tuner.results.folder import RunFolder, create_run, default_name, open_run
from tuner.results.ledger import Event, Kind, Ledger
from tuner.results.lock import RunLock
from tuner.results.records import SearchRecord
from tuner.results.stranger import read_object
from tuner.watch.trackers import Tracker, Tracking, load_tracker

Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a search ended. exit_code: 0 done, 1 no usable trial or halted, 3 done with failed trials, 130 or 143 after
    a signal. path: the run folder. trouble: what could not be written at the end, and what to do."""

    record: SearchRecord
    path: Path
    exit_code: int
    signal: int | None = None
    trouble: str = ""


def run_search(experiment: Experiment, listeners: Sequence[Observer] = ()) -> Outcome:
    """Runs a search in a new run folder. `listeners` hear every event after it is on disk.

    Raises InputError for what the user wrote, and StopRequested for a signal before the first trial; nothing is left
    behind then.
    """
    with StopSignals() as signals:
        with signals.whole():
            plan = make_plan(experiment)
        needed = experiment.run.min_free_mb * 2**20
        folder = create_run(experiment.storage_path, experiment.run.name or default_name(), needed)
        try:
            lock = RunLock(folder.path)
            experiment = pinned(experiment, folder.logs / "prepare.log")
            plan = replace(plan, experiment=experiment)
            write_settings(folder, experiment)
            outcome = _Search(plan, folder, lock, listeners, signals, SearchRecord()).run()
            if outcome.signal is not None and not outcome.record.trials:
                raise StopRequested(outcome.signal)
            return outcome
        except (InputError, OSError, StopRequested) as error:
            signals.mute()
            if not _has_trials(folder):  # nothing ran: give the name back
                shutil.rmtree(folder.path, ignore_errors=True)
                storage.forget(folder.path)
            if isinstance(error, OSError) and is_full(error):
                remedy = "make room, or give another --storage-path"
                raise InputError(f"no room on the disk ({error})", where=str(folder.path), remedy=remedy) from error
            raise


def _has_trials(folder: RunFolder) -> bool:
    try:
        return bool(folder.record().trials)
    except InputError:
        return True


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
    with StopSignals() as signals:
        folder = open_run(storage_path, name)
        lock = RunLock(folder.path)
        try:
            record = folder.record()
            experiment = _with_num_trials(read_settings(folder, record.settings_digest), record, num_trials)
            place = {
                "name": folder.name,
                "storage_path": str(folder.path.parent),
                "address": address or experiment.run.address,
            }
            experiment = replace(experiment, run=experiment.run.model_copy(update=place))
            search = _Search(make_plan(experiment), folder, lock, listeners, signals, record)
        except Exception:
            lock.release()
            raise
        return search.run()


def _with_num_trials(experiment: Experiment, record: SearchRecord, wanted: int | None) -> Experiment:
    """The experiment with the total that is `wanted`, or with the one it had: trials may have been added."""
    have = len(record.trials) + len(record.additions)
    if wanted is not None and wanted < have:
        raise InputError(
            f"the search already has {have} trials",
            where="--num-trials",
            expected=f"{have} or more",
        )
    num_trials = wanted or record.num_trials or experiment.search.num_trials
    return replace(experiment, search=experiment.search.model_copy(update={"num_trials": num_trials}))


class _Search:
    """One session of a search: new or resumed, it is the same. record: what the ledger says, folded under the lock."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        lock: RunLock,
        listeners: Sequence[Observer],
        signals: StopSignals,
        record: SearchRecord,
    ) -> None:
        self._plan, self._experiment, self._folder, self._lock = plan, plan.experiment, folder, lock
        self._record = record
        self._signals = signals
        self._listeners = listeners
        self._ended_before = len(self._record.ended)
        self._room = Room(
            folder.path,
            self._experiment.run.min_free_mb * 2**20,
            say=self._say,
            note=self._note,
            stopping=self._signals.requested,
        )
        self._ledger = Ledger(folder.ledger, [self._record.apply, *listeners], full=self._room.full)
        self._mirror = storage.Mirror(folder.path)

    def run(self) -> Outcome:
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self._mirror.close)
            stack.callback(self._ledger.close)
            halt: Verdict | None = None
            failure: Exception | None = None
            trouble = ""
            try:
                halt = self._carry_out(stack)
            except RayGone as gone:
                trouble = f"{gone}; every report before it is kept\n  try: {resume_command_line(self._folder.path)}"
            except StopRequested:
                pass
            except SystemExit as leaving:  # Ray answers SIGTERM itself while it starts, with this
                if leaving.code != signal.SIGTERM:
                    raise
                self._signals.number = self._signals.number or signal.SIGTERM
            except Fault as fault:
                halt = fault.verdict
            except Exception as error:
                # A second signal may end Ray's own calls in any way; what was reported is in the ledger by then.
                failure = error if self._signals.number is None else None
            self._signals.mute()
            if failure is not None and not self._record.trials:
                raise failure
            outcome = self._finish(halt, failure, trouble)
            if failure is not None:
                raise failure
            return outcome

    def _carry_out(self, stack: ExitStack) -> Verdict | None:
        settings = self._experiment.settings.model_dump(mode="json")
        log = self._folder.logs / "prepare.log"
        preparing = Apart(self._experiment.program, "prepare", settings, str(self._folder.data), log=log)
        stack.callback(preparing.close)
        with self._signals.whole():
            import_ray(self._experiment.run.address)
        token = "" if joins(self._experiment.run.address) else guard_token()
        about = {"job_name": self._folder.name, "folder": str(self._folder.path), "tuner": __version__}
        about |= {"num_trials": str(self._experiment.search.num_trials)}
        stack.enter_context(ray_session(self._experiment.run.address, self._folder.logs / "driver.log", about))
        self._signals.listen()
        resources = decide(
            self._experiment.run,
            self._experiment.scheduler,
            offered(self._experiment.run.accelerator_type, may_grow=bool(self._experiment.run.scale_to)),
            self._experiment.search.num_trials,
            self._plan.trials_per_gpu,
            learns=self._plan.learns,
        )
        different = require_nodes(self._folder.path, self._experiment.program)
        packing = self._start_engines(resources, settings, stack)
        self._ledger.listen(self._tracking(stack))
        self._ledger.append(Kind.SEARCH, details=self._opening(resources))
        notes = [*self._plan.notes, *different]
        if torn := self._ledger.torn:
            notes.append(f"the last line of the ledger was torn ({torn} bytes, of a driver that died) and is cut off")
        if url := dashboard_url():
            notes.append(f"the trials in the Ray dashboard: {url} (its token: ray get-auth-token)")
        for note in (*notes, token):
            self._note(note)
        made = preparing.result()
        preparation = Preparation(**{**made, "notes": tuple(made["notes"])})
        self._require_same_data(preparation)
        self._mirror.data()
        self._ledger.append(Kind.PREPARED, details={"facts": dict(preparation.facts), "notes": list(preparation.notes)})
        with self._signals.whole():
            from tuner.execution.tune import run_trials  # imports ray.tune: only once there is something to run

        drop_handlers()
        if packing is not None:
            packing, resources = self._settle(packing, resources, preparation)
        return run_trials(
            self._plan, resources, preparation, folder=self._folder, ledger=self._ledger, record=self._record,
            signals=self._signals, room=self._room, engines=packing,
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
            self._note(note)
        return replace(packing, preparation=preparation), resources

    def _tracking(self, stack: ExitStack) -> Tracking:
        folder, names = self._folder, self._experiment.run.trackers
        makers: dict[str, Callable[[], Tracker]] = {
            name: partial(load_tracker(name), folder.name, folder.path) for name in names
        }
        tracking = Tracking(makers, self._record, self._note)
        stack.callback(tracking.close)
        return tracking

    def _require_same_data(self, preparation: Preparation) -> None:
        before, now = (facts.get("data_fingerprint") for facts in (self._record.facts, preparation.facts))
        if self._record.trials and before and before != now:
            raise InputError(
                "the data is not what it was when the search began: old and new losses cannot be compared",
                where=str(self._folder.path),
                expected=f"the files of the first session (fingerprint {before}, now {now})",
                remedy="put them back, or start a new search",
            )

    def _note(self, text: str) -> None:
        if not text:
            return
        self._ledger.append(Kind.NOTE, details={"text": text})

    def _say(self, text: str) -> None:
        """Shows what no event can tell, because it cannot be written down."""
        for listener in self._listeners:
            say = getattr(listener, "say", None)
            if say is not None:
                say(text)

    def _opening(self, resources: Resources) -> dict[str, Any]:
        experiment = self._experiment
        return {
            "name": self._folder.name,
            "num_trials": experiment.search.num_trials,
            "workers": resources.workers,
            "slots": resources.slots,
            "cpus_per_trial": resources.cpus,
            "gpus_per_trial": resources.gpus,
            "workers_per_trial": resources.processes,
            "recipe": dict(self._plan.recipe),
            "dashboard": dashboard_url(),
            "settings": digest_of(self._folder.resolved),
        }

    def _finish(self, halt: Verdict | None, failure: Exception | None, trouble: str) -> Outcome:
        record, stopped = self._record, self._signals.number
        self._room.open = False  # signals are muted by now: nobody could end a wait for room
        code = exit_code(record, halt, stopped)
        if trouble and stopped is None:
            code = 1
        try:
            if failure is None or len(record.ended) > self._ended_before:  # else it stays what it was
                self._keep_best()
            self._close_books(halt, failure, code)
        except OSError as error:
            if not is_full(error):
                raise
            trouble = (
                f"no room on the disk of {self._folder.path}: the end could not be written, every report before it is "
                f"kept\n  try: make room; this writes what is missing: {resume_command_line(self._folder.path)}"
            )
            code = code or 1
        return Outcome(record, self._folder.path, code, stopped, trouble)

    def _keep_best(self) -> None:
        best = self._record.best
        if best is None:
            return
        self._mirror.fetch(best.adapter)
        resolved = read_object(self._folder.resolved)
        train = fixed_experiment(self._experiment, best.params)
        if write_best(self._folder, self._record, train=train, resolved=resolved) is None:
            self._note(f"the adapter of trial {best.number} is not where it was saved: there is no best/")

    def _close_books(self, halt: Verdict | None, failure: Exception | None, code: int) -> None:
        stopped = self._signals.number
        self._ledger.append(
            Kind.FINISHED,
            reason=str(halt.reason) if halt else None,
            details={
                "outcome": _outcome(self._record, halt, failure, stopped),
                "message": halt.message if halt else str(failure or ""),
                "remedy": halt.remedy if halt else "",
                "exit_code": code,
            },
        )


def exit_code(record: SearchRecord, halt: Verdict | None, stopped: int | None) -> int:
    """0 done, 1 no usable trial or a set-up fault, 3 done with failed trials, 128 + signal."""
    if stopped is not None:
        return 128 + stopped
    if halt is not None or record.best is None:
        return 1
    failed = any(t.status is Status.FAILED for t in record.ended)
    return 3 if failed else 0


def _outcome(record: SearchRecord, halt: Verdict | None, failure: Exception | None, signal: int | None) -> str:
    if signal is None and (halt or failure):
        return "halted" if halt else "failed"
    if signal is not None or record.cut_off:
        return "interrupted"
    return "stopped" if record.stopped else "done"
