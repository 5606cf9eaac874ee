"""Runs or resumes a search, from start to end."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tuner import __version__
from tuner.addresses import joins
from tuner.config import Experiment
from tuner.contract import Fault, InputError, Preparation, Reason, Verdict
from tuner.disks import is_of_disk
from tuner.driver import ingredients
from tuner.driver.disk_guard import DiskGuard, DiskLost, refused_by_disk
from tuner.driver.ending import NOTHING_KEPT, Ending, Outcome, give_back, nothing_left
from tuner.driver.permits import remember, with_remembered
from tuner.driver.pinning import pinned
from tuner.driver.plan import Plan, make_plan
from tuner.driver.resolved_settings import digest_of, read_settings, write_settings
from tuner.driver.resuming import with_more
from tuner.importing import Permission
from tuner.ray_cluster.nodes import RayGone, offered, require_nodes
from tuner.ray_cluster.resources import Allocation, decide
from tuner.ray_cluster.session import dashboard_page, drop_handlers, import_ray, ray_session
from tuner.ray_cluster.token import guard_token
from tuner.results import storage
from tuner.results.command_line import ray_command_line, resume_command_line
from tuner.results.folder import RunFolder, create_run, default_name, open_run
from tuner.results.ledger import Event, Kind, Ledger
from tuner.results.lock import RunLock
from tuner.results.records import SearchRecord
from tuner.results.sameness import MADE_OF
from tuner.signals import StopRequested, StopSignals, exit_now
from tuner.subprocess_call import SubprocessProgram
from tuner.watch.listeners import Listeners
from tuner.watch.trackers import CLOSE_S, CUT_S, Tracker, Tracking, load_tracker

__all__ = ["Outcome", "resume_search", "run_search"]

Observer = Callable[[Event], None]
"""Is called with every event of a search, after it is on disk."""


def run_search(
    experiment: Experiment, listeners: Sequence[Observer] = (), show_outcome: Callable[[Outcome], int] | None = None, *,
    accept_changes: bool = False, probe_at: tuple[float, ...] = (),
) -> Outcome:  # fmt: skip
    """Runs a search in a new run folder. listeners: called with every event after it is on disk. show_outcome: shows an
    outcome where a signal has to end the process without returning from here. accept_changes: goes on, with a note,
    where trials are not made of what `run.made_of` expects.

    Raises InputError for what the user wrote, and StopRequested for a signal before the first trial; nothing is left
    behind then.
    """
    with StopSignals() as signals:
        signals.end_process = partial(exit_now, text=f"{NOTHING_KEPT}\n")
        with signals.uninterrupted():
            plan = replace(make_plan(experiment), probe_at=probe_at)
        needed = experiment.run.min_free_mb * 2**20
        folder = create_run(experiment.storage_path, experiment.run.name or default_name(), needed)
        signals.end_process = partial(_give_up, folder)
        try:
            lock = RunLock(folder.path)
            experiment = pinned(experiment, folder.logs / "prepare.log")
            plan = replace(plan, experiment=experiment)
            write_settings(folder, experiment)
            remember(digest_of(folder.resolved), experiment.code.values())
            search = _Search(
                plan, folder, lock, listeners, signals, SearchRecord(), show_outcome, accept=accept_changes
            )
            outcome = search.run()
            if outcome.signal is not None and not outcome.record.trials:
                raise StopRequested(outcome.signal)
            return outcome
        except (InputError, Fault, OSError, KeyboardInterrupt) as error:
            signals.mute()
            give_back(folder)
            if isinstance(error, OSError) and (refusal := refused_by_disk(error, folder.path)) is not None:
                raise refusal from error
            raise


def _give_up(folder: RunFolder, number: int) -> None:
    give_back(folder)
    exit_now(number, f"{NOTHING_KEPT}\n")


def resume_search(
    storage_path: Path,
    name: str,
    listeners: Sequence[Observer] = (),
    num_trials: int | None = None,
    budget: Mapping[str, Any] | None = None,
    address: str | None = None,
    show_outcome: Callable[[Outcome], int] | None = None,
    permission: Permission | None = None,
    accept_changes: bool = False,
) -> Outcome:
    """Goes on with a search where its ledger ends: finished trials stay, cut-off ones run again, new ones follow. A
    search with nothing left to run is returned as it is, before Ray is started.

    num_trials: a new total; None for the one it had. budget: amounts of `search.budget` that change. address: another
    cluster than before. show_outcome: as in `run_search`. permission: which code of the user's own may be run, beside
    what they let this search run on this machine. accept_changes: goes on, with a note, where base, rows or code are
    not what they were. Raises InputError where there is no such run, where it is being written by another driver, where
    num_trials is less than what has run, or for such a change.
    """
    with StopSignals() as signals:
        folder = open_run(storage_path, name)
        signals.end_process = partial(exit_now, text=f"interrupted; to go on: {resume_command_line(folder.path)}\n")
        lock = RunLock(folder.path)
        try:
            record = folder.record()
            permission = with_remembered(permission or Permission.given(beside=False), record.settings_digest)
            read = read_settings(folder, record.settings_digest, permission)
            remember(record.settings_digest, read.code.values())
            experiment = with_more(read, record, num_trials, budget)
            place = {
                "name": folder.name,
                "storage_path": str(folder.path.parent),
                "address": address or experiment.run.address,
            }
            experiment = replace(experiment, run=experiment.run.model_copy(update=place))
            plan = make_plan(experiment)
            folder.restore_places()
            ingredients.require_same_objective(record, plan.objectives[0], folder)
            if (done := nothing_left(folder, record, experiment.search)) is not None:
                lock.release()
                return done
            search = _Search(plan, folder, lock, listeners, signals, record, show_outcome, accept=accept_changes)
        except Exception as error:
            lock.release()
            if isinstance(error, OSError) and (refusal := refused_by_disk(error, folder.path)) is not None:
                raise refusal from error
            raise
        return search.run()


def _preparation(made: Any) -> Preparation:
    """The Preparation that `prepare` returned, which came as a dict. Raises Fault where it returned something else."""
    if not isinstance(made, dict) or not {"folder", "facts", "notes"} <= made.keys():
        told = f"the program's prepare answered {type(made).__name__}, expected a Preparation"
        raise Fault(Reason.ERROR, told, "mend the program: prepare returns a tuner.contract.Preparation")
    return Preparation(**{**made, "notes": tuple(made["notes"])})


def _second_to_an_error(close: Callable[[], None]) -> Callable[..., None]:
    """Makes an exit callback of `close` for an ExitStack. Where another error is under way there, that of `close` only
    goes to the log."""

    def on_exit(kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            close()
        except Exception:
            if error is None:
                raise
            logging.getLogger(__name__).exception("closing failed after an error")

    return on_exit


class _Search:
    """One session of a search, new or resumed. record: what the ledger says, read while the run folder is locked."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        lock: RunLock,
        listeners: Sequence[Observer],
        signals: StopSignals,
        record: SearchRecord,
        show_outcome: Callable[[Outcome], int] | None,
        *,
        accept: bool,
    ) -> None:
        self._accept = accept
        self._plan, self._experiment, self._folder, self._lock = plan, plan.experiment, folder, lock
        self._record = record
        self._signals = signals
        self._listeners = Listeners(listeners)
        self._disk = DiskGuard(
            folder.path,
            self._experiment.run.min_free_mb * 2**20,
            say=self._listeners.say,
            note=self._note,
            stopping=self._signals.requested,
        )
        self._ledger = Ledger(folder.ledger, [self._record.apply, self._listeners], full=self._disk.full)
        self._mirror = storage.Mirror(folder.path)
        self._ending = Ending(
            self._experiment, folder, record, self._ledger, self._mirror, self._disk, signals, show_outcome
        )
        signals.end_process = self._ending.write_alone

    def run(self) -> Outcome:
        """Runs the session, and writes its end whatever ended it. Raises the error that ended it, if one did."""
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.push(_second_to_an_error(self._mirror.close))
            stack.push(_second_to_an_error(self._ledger.close))
            halt: Verdict | None = None
            failure: Exception | None = None
            trouble = ""
            lost: DiskLost | None = None
            try:
                halt = self._carry_out(stack)
            except RayGone as gone:
                self._signals.comes()
                trouble = f"{gone}; every report before it is kept\n  try: {resume_command_line(self._folder.path)}"
            except DiskLost as gone:
                lost = gone
            except KeyboardInterrupt:  # or what Ray's calls make of it
                self._signals.first = self._signals.first or signal.SIGINT
            except Fault as fault:
                if not self._signals.comes():
                    halt = fault.verdict
                    lost = DiskLost(self._folder.path, halt.message) if is_of_disk(halt) else None
            except Exception as error:
                # A second signal may end Ray's own calls with any error; so may a signal that reached Ray's processes
                # first, or the process that prepares the rows. What was reported is in the ledger by then.
                if not self._signals.comes():
                    lost = self._disk.lost(error)
                    failure = error if lost is None else None
            self._signals.mute()
            if lost is not None and self._signals.first is None and not self._record.trials:
                failure = lost.refusal
            if failure is not None and not self._record.trials:
                raise failure
            outcome = self._ending.write(halt, failure, trouble, lost)
            if failure is not None:
                raise failure
            return outcome

    def _carry_out(self, stack: ExitStack) -> Verdict | None:
        """Starts Ray, prepares the data and runs the trials; returns the verdict that halted the search, if one did."""
        settings = self._experiment.settings.model_dump(mode="json")
        log = self._folder.logs / "prepare.log"
        preparing = SubprocessProgram(self._experiment.program, "prepare", settings, str(self._folder.data), log=log)
        stack.callback(preparing.close)
        with self._signals.uninterrupted():
            import_ray(self._experiment.run.address)
        token = "" if joins(self._experiment.run.address) else guard_token()
        about = {"job_name": self._folder.name, "folder": str(self._folder.path), "tuner": __version__}
        about |= {"num_trials": str(self._experiment.search.num_trials)}
        stack.enter_context(ray_session(self._experiment.run.address, self._folder.logs / "driver.log", about))
        self._signals.listen()  # again: Ray's C++ side has taken SIGTERM
        allocation = self._allocation(self._plan.trials_per_gpu)
        different = require_nodes(self._folder.path, self._experiment.program)
        packing = self._start_engines(allocation, settings, stack, mixed=self._plan.mixed)
        self._listeners.add(self._tracking(stack))
        self._ledger.append(Kind.SEARCH, details=self._opening(allocation))
        notes = [*self._plan.notes, *different]
        if self._plan.unasked and allocation.gpus:
            notes.append(
                "trials may be able to share a GPU: --trials-per-gpu auto finds out whether this base lets them, and "
                "how many pay"
            )
        if torn := self._ledger.torn:
            notes.append(f"the last line of the ledger was torn ({torn} bytes, of a driver that died) and is cut off")
        if url := dashboard_page():
            notes.append(f"the trials in the Ray dashboard: {url} (its token: {ray_command_line('get-auth-token')})")
        for note in (*notes, token):
            self._note(note)
        preparation = _preparation(preparing.result(self._listeners.tell))
        checked = self._plan.program.check_values(self._experiment.settings, self._plan.choices, preparation)
        facts, same = self._compared(preparation.facts)
        self._mirror.data()
        notes = [*preparation.notes, *checked, *same]
        self._ledger.append(Kind.PREPARED, details={"facts": facts, "notes": notes})
        with self._signals.uninterrupted():
            from tuner.driver.ray_tune import run_trials  # imports ray.tune: only once there is something to run

        drop_handlers()
        if packing is not None:
            packing, allocation = self._settle(packing, allocation, preparation, stack)
        return run_trials(
            self._plan, allocation, preparation, folder=self._folder, ledger=self._ledger, record=self._record,
            signals=self._signals, disk=self._disk, engines=packing,
        )  # fmt: skip

    def _allocation(self, trials_per_gpu: int | str) -> Allocation:
        wanted = self._experiment.resources
        return decide(
            wanted,
            offered(wanted.accelerator_type, may_grow=bool(wanted.scale_to)),
            self._experiment.search.num_trials,
            trials_per_gpu,
            learns=self._plan.learns,
        )

    def _start_engines(self, allocation: Allocation, settings: dict[str, Any], stack: ExitStack, *, mixed: bool) -> Any:
        """Starts the engines of packed trials, which import what they need while the rows are still being prepared.
        None where trials are not packed."""
        if self._plan.trials_per_gpu == 1:
            return None
        from tuner.worker.config import ProgramSource
        from tuner.worker.engine_pool import engine_pool

        made = engine_pool(
            allocation,
            program=ProgramSource.here(self._experiment.program),
            settings=settings,
            mixed=mixed,
            accelerator_type=self._experiment.resources.accelerator_type,
        )
        return stack.enter_context(made)

    def _settle(
        self, packing: Any, allocation: Allocation, preparation: Preparation, stack: ExitStack
    ) -> tuple[Any, Allocation]:
        """Makes the engines ready, and takes no more trials at a time than they have room for. Returns no engines where
        trials on this base cannot be packed."""
        wanted, auto = allocation.slots, self._plan.trials_per_gpu == "auto"
        begun = packing.begin(preparation, heaviest=self._plan.heaviest, measure=auto, points=self._plan.points)
        if why := next((engine.note for engine in begun if not engine.slots), ""):
            if not auto:
                raise Fault(Reason.CONFIG, why, "set resources.trials_per_gpu to 1, or to auto")
            packing.close()  # their GPUs are needed
            self._note(f"one trial at a time on a GPU: {why}")
            return None, self._allocation(1)
        if (why := next((engine.refused for engine in begun if engine.refused), "")) and not packing.solos:
            # Only the loaded base could tell: the engines are made anew, with a worker for an unpacked trial beside
            # each
            packing.close()
            self._note(f"a trial that cannot be packed runs alone, beside the packed ones: {why}")
            packing = self._start_engines(allocation, dict(packing.settings), stack, mixed=True)
            begun = packing.begin(preparation, heaviest=self._plan.heaviest, measure=auto, points=())
        allocation = allocation.settled(min(engine.slots for engine in begun))
        notes = dict.fromkeys(engine.note for engine in begun if engine.note)
        if not auto and allocation.slots < wanted and self._experiment.run.strict:
            raise InputError(
                f"{allocation.slots} trials fit on a GPU, not {wanted}",
                where="resources.trials_per_gpu",
                expected=f"at most {allocation.slots}, or auto",
                remedy="ask for fewer, or leave out --strict to go on with what fits",
            )
        for note in notes:
            self._note(note)
        return replace(packing, preparation=preparation), allocation

    def _tracking(self, stack: ExitStack) -> Tracking:
        folder, names = self._folder, self._experiment.run.trackers
        makers: dict[str, Callable[[], Tracker]] = {
            name: partial(load_tracker(name), folder.name, folder.path) for name in names
        }
        tracking = Tracking(makers, self._record, self._note)
        stack.callback(lambda: tracking.close(CUT_S if self._signals.requested() else CLOSE_S))
        return tracking

    def _compared(self, prepared: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The facts with the fingerprints of all that trials are made of, and notes on what has changed.

        Raises InputError for a change that the user has not accepted.
        """
        made_of = ingredients.made_of(prepared, self._experiment, self._plan.space)
        facts = {**prepared, MADE_OF: made_of}
        same = ingredients.require_same(self._record, facts, self._experiment, self._folder, accept=self._accept)
        return facts, same

    def _note(self, text: str) -> None:
        if not text:
            return
        self._ledger.append(Kind.NOTE, details={"text": text})

    def _opening(self, allocation: Allocation) -> dict[str, Any]:
        """The details of the ledger's `search` event."""
        experiment = self._experiment
        return {
            "name": self._folder.name,
            "num_trials": experiment.search.num_trials,
            "objectives": [objective.to_dict() for objective in self._plan.objectives],
            "workers": allocation.workers,
            "slots": allocation.slots,
            "cpus_per_trial": allocation.cpus,
            "gpus_per_trial": allocation.gpus,
            "price_per_gpu_hour": experiment.run.price_per_gpu_hour,
            "budget": experiment.search.budget.model_dump(mode="json", exclude_none=True),
            "workers_per_trial": allocation.processes,
            "recipe": dict(self._plan.recipe),
            "ladder": self._plan.places,
            "dashboard": dashboard_page(),
            "settings": digest_of(self._folder.resolved),
        }
