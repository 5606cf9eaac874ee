"""A trial on several GPUs: a worker group of Ray Train, whose processes run the program together.

The trial's actor is the same as for other trials (trial_actor.py); its program is a `ProcessGroupProgram`, which starts
a TorchTrainer. That starts the processes, joins them in a torch process group and checks that they live. It lasts as
long as the worker: its training function serves one trial after another, so imports and the load of the base happen
once. The processes take commands from a `CommandBoard`: each gets the same commands in the same order and waits for the
next one after each, so a trial that is stopped is stopped in all of them at the same evaluation.

A fault in one process leaves the others waiting in a collective. A group in which one process has answered with a
fault, or died, is therefore ended with all of its processes; the next trial starts another.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from tuner.contract import Assignment, Evaluation, Fault, Group, Preparation, Reason, Runner, Setup
from tuner.failures import Failure, capture
from tuner.ray_cluster.resources import SLOT_CPUS, of_type
from tuner.scheduling.wire import checked
from tuner.worker.config import ProgramSource
from tuner.worker.store_sync import arrived, synced
from tuner.worker.trial_log import TrialLog

Answer = Setup | Evaluation | Failure | None
"""What one process answered to a command; None to `stop`."""

LOOK_S = 0.5
"""Seconds between two looks at whether the group still runs, while it trains."""
DIES_WITHIN_S = 5.0
"""Seconds after which a process that does not answer, while another one failed, counts as lost."""
ENDS_WITHIN_S = 30.0
"""Seconds for a group that was told to end; what is left of it then ends with this worker's process."""
STARTS_ANEW = 60
"""How often Ray Train waits a minute for the group's GPUs, which an autoscaler may have to add first."""
COLLECTIVE_TIMEOUT_S = 1800
"""torch's time limit for one collective, in seconds; the driver's watchdog acts before it where its timeout is
shorter."""

_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a lost node is found either way, and the trial goes on from its state
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass(frozen=True)
class GroupConfig:
    """What a group is told once. cpus, gpus: of each process. more: other Ray resources that each process asks for."""

    program: ProgramSource
    settings: Mapping[str, Any]
    preparation: Preparation
    size: int
    strategy: str
    cpus: float
    gpus: float
    more: Mapping[str, float]


@dataclass(frozen=True)
class Command:
    """What all processes do next. call: "start", "step", "stop", or "end", which ends the process. log: the log file of
    the first process."""

    call: str
    assignment: Assignment | None = None
    log: str = ""


class CommandBoard:
    """The actor that holds the commands for every process of a group, and collects the answers. Calls may run at
    once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._commands: list[Command] = []
        self._answers: list[dict[int, Answer]] = []
        self._processes: dict[int, Any] = {}
        self._changed = threading.Condition()

    def enter(self, rank: int, actor: Any) -> None:
        """Notes that a process has started."""
        with self._changed:
            self._processes[rank] = actor

    def processes(self) -> dict[int, Any]:
        """The processes that have started, by rank."""
        with self._changed:
            return dict(self._processes)

    def give(self, command: Command) -> int:
        """Adds a command; returns its index."""
        with self._changed:
            self._commands.append(command)
            self._answers.append({})
            self._changed.notify_all()
            return len(self._commands) - 1

    def take(self, number: int) -> Command:
        """Waits for the command with that index, and returns it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._commands) > number)
            return self._commands[number]

    def answer(self, number: int, rank: int, answer: Answer) -> None:
        """Notes what a process answered to a command."""
        with self._changed:
            self._answers[number][rank] = answer
            self._changed.notify_all()

    def answers(self, number: int) -> dict[int, Answer]:
        """Waits until all processes have answered a command, or one has failed; returns the answers by rank."""
        answers = self._answers[number]
        with self._changed:
            self._changed.wait_for(lambda: len(answers) == self._size or _failed(answers))
            return dict(answers)


class ProcessGroupProgram:
    """A program that several processes run: starts, steps and stops like any. log: returns the log file of the trial
    that is about to start."""

    def __init__(self, config: GroupConfig, log: Callable[[], str]) -> None:
        self._config, self._log = config, log
        self._board: Any = None
        self._thread: threading.Thread | None = None
        self._failure: Failure | None = None

    def start(self, assignment: Assignment) -> Setup:
        self._begin()
        return self._ask(Command("start", assignment, self._log()))

    def step(self) -> Evaluation:
        return self._ask(Command("step"))

    def stop(self) -> None:
        if self._thread is not None:
            self._ask(Command("stop"))

    def close(self) -> None:
        """Ends the group."""
        self._end()

    def _begin(self) -> None:
        if self._thread is not None:
            return
        self._failure = None
        options = {"num_cpus": 0, "max_concurrency": 2 * self._config.size + 4}
        self._board = ray.remote(CommandBoard).options(**options).remote(self._config.size)
        self._thread = threading.Thread(target=self._run, args=(self._board,), name="group", daemon=True)
        self._thread.start()

    def _run(self, board: Any) -> None:
        """Runs Ray Train until all of its processes have ended."""
        ended = capture(lambda: self._train(board))
        self._failure = ended if isinstance(ended, Failure) else None

    def _train(self, board: Any) -> None:
        _set_environment()
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from tuner.worker import group_cleaning

        group_cleaning.use()

        config = self._config
        share = {"CPU": config.cpus, **({"GPU": config.gpus} if config.gpus else {}), **config.more}
        with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
            TorchTrainer(
                serve,
                train_loop_config={"group": config, "board": board},
                # All on one node where one has room for them, else on several
                scaling_config=ScalingConfig(
                    num_workers=config.size, use_gpu=bool(config.gpus), resources_per_worker=share,
                    placement_strategy="PACK",
                ),
                torch_config=TorchConfig(
                    backend="nccl" if config.gpus else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S
                ),
                run_config=RunConfig(
                    name="group",
                    storage_path=folder,  # nothing is written: a trial's adapter and state go into its own folder
                    failure_config=FailureConfig(
                        max_failures=0, max_preemption_failures=0, controller_failure_limit=STARTS_ANEW
                    ),
                ),
            ).fit()  # fmt: skip

    def _ask(self, command: Command) -> Any:
        """The processes' answer to a command, as one. Raises the Fault of a process that failed, or that was lost."""
        answers = self._answers(command)
        if not _failed(answers):
            return _together([answer for _, answer in sorted(answers.items())])
        if any(_reason(answer) is Reason.ERROR for answer in answers.values()) and (lost := self._lost()):
            # The others only report that the collective failed; the cause is the process that is gone
            fault = Fault(Reason.INFRASTRUCTURE, lost)
        else:
            fault = next(answer.fault for answer in answers.values() if isinstance(answer, Failure))
        self._end(by_force=len(answers) < self._config.size)
        raise fault

    def _answers(self, command: Command) -> Mapping[int, Answer]:
        """The answers to a command, by rank. Raises Fault where the group ends meanwhile."""
        try:
            number = ray.get(self._board.give.remote(command))
            answers = self._board.answers.options(name=command.call).remote(number)
            while True:
                ready, _ = ray.wait([answers], timeout=LOOK_S)
                if ready:
                    return ray.get(answers)
                if self._thread is None or not self._thread.is_alive():
                    raise self._broken()
        except RayActorError as error:
            self._end(by_force=True)
            raise Fault(Reason.INFRASTRUCTURE, "the process that holds a trial's group together was lost") from error

    def _broken(self) -> Fault:
        """Cleans up after a group that ended by itself, and returns why: a process died, or the group could not
        start."""
        failure, message = self._failure, self._lost() or "a trial's group of processes ended"
        self._end(by_force=True)
        if failure is not None and failure.verdict.reason is not Reason.INFRASTRUCTURE:
            return failure.fault  # the group could not start: Ray Train cannot be imported, say
        fault = Fault(Reason.INFRASTRUCTURE, message)
        fault.__cause__ = None if failure is None else failure.fault
        return fault

    def _lost(self) -> str:
        """Which processes are gone, in words; "" where all of them answer."""
        size, gone = self._config.size, []
        deadline = time.monotonic() + DIES_WITHIN_S
        for rank, actor in sorted(self._processes().items()):
            try:
                ray.get(actor.__ray_ready__.remote(), timeout=max(0.1, deadline - time.monotonic()))
            except (RayActorError, GetTimeoutError):
                gone.append(str(rank))
        return f"process {' and '.join(gone)} of the trial's {size} was lost" if gone else ""

    def _processes(self) -> dict[int, Any]:
        try:
            return ray.get(self._board.processes.remote(), timeout=DIES_WITHIN_S)
        except (RayActorError, GetTimeoutError):
            return {}

    def _end(self, by_force: bool = False) -> None:
        """Ends the group, and with it Ray Train, which frees the resources. by_force: kills the processes without
        waiting for them, because one is in a collective that will not end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        processes = self._processes()
        if not by_force:
            try:
                ray.get(self._board.give.remote(Command("end")), timeout=DIES_WITHIN_S)
                thread.join(DIES_WITHIN_S)
            except (RayActorError, GetTimeoutError):
                logging.getLogger(__name__).warning("the board of a trial's group does not answer")
        for actor in processes.values() if thread.is_alive() else ():
            ray.kill(actor)
        thread.join(ENDS_WITHIN_S)
        ray.kill(self._board)
        self._board = None


def _set_environment() -> None:
    """Sets the environment variables that Ray Train reads, here and in the processes that it starts.

    RAY_ADDRESS is for a process of Ray Train's that frees a group's GPUs after this process was killed. Without the
    address it takes a cluster that it finds on this machine: with a second Ray there it may ask the wrong one, and the
    GPUs are held until the search ends.
    """
    from ray.train.v2._internal import constants

    for name, value in {**_ENVIRONMENT, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}.items():
        os.environ.setdefault(name, value)
    constants.ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


def process_group(worker: Any, log: Callable[[], str]) -> ProcessGroupProgram:
    """Makes the program of a worker whose trials several processes train. log: as in `ProcessGroupProgram`."""
    size = worker.processes
    share = math.floor((worker.cpus - SLOT_CPUS) / size * 1e4) / 1e4  # rounded down: Ray counts in 1/10,000
    return ProcessGroupProgram(
        GroupConfig(
            worker.program, worker.settings, worker.preparation, size, worker.strategy,
            cpus=max(0.001, share), gpus=worker.gpus / size,
            more=of_type(worker.accelerator_type),
        ),
        log,
    )  # fmt: skip


def serve(config: Mapping[str, Any]) -> None:
    """Runs in each process of a group, as Ray Train's training function: carries out the board's commands until
    "end"."""
    from ray import train

    group_config, board = config["group"], config["board"]
    context = train.get_context()
    group = Group(context.get_world_rank(), context.get_world_size(), group_config.strategy)
    ray.get(board.enter.remote(group.rank, ray.get_runtime_context().current_actor))
    member, number = _Member(group_config, group), 0
    while True:
        command = ray.get(board.take.remote(number))
        if command.call == "end":
            return
        ray.get(board.answer.remote(number, group.rank, member.answer(command)))
        number += 1


class _Member:
    """The program in one process."""

    def __init__(self, config: GroupConfig, group: Group) -> None:
        self._config, self._group = config, group
        self._program: Runner | None = None
        self._log = TrialLog()

    def answer(self, command: Command) -> Answer:
        """The program's answer to a command, or the Failure that stands for what it raised."""
        folder = None if command.assignment is None else Path(command.assignment.folder)
        return capture(partial(self._carry_out, command), folder)

    def _carry_out(self, command: Command) -> Answer:
        if command.call == "start":
            assert command.assignment is not None
            self._log.open(self._place_of(command.log))
            if self._program is None:
                self._program = self._made()
            return checked(self._program.start(command.assignment))
        assert self._program is not None
        if command.call == "step":
            return checked(self._program.step())
        self._program.stop()
        return None

    def _made(self) -> Runner:
        made = self._config.program.load()
        program = made(self._config.settings, arrived(self._config.preparation), self._group)
        return synced(program, self._config.preparation, pushes=self._group.leads)

    def _place_of(self, log: str) -> Path:
        """The trial's log for the first process; for each other one a file beside it with its rank in the name."""
        place = Path(log)
        return place if self._group.leads else place.with_name(f"{place.stem}-{self._group.rank}{place.suffix}")


def _reason(answer: Answer) -> Reason | None:
    """Why a process failed; None where it did not."""
    return answer.verdict.reason if isinstance(answer, Failure) else None


def _failed(answers: Mapping[int, Answer]) -> bool:
    return any(_reason(answer) for answer in answers.values())


def _together(reports: Sequence[Answer]) -> Any:
    """The processes' reports as one: that of the first process, with the peak memory in bytes of the fullest GPU."""
    first = reports[0]
    if isinstance(first, Evaluation):
        memory = [one.memory for one in reports if isinstance(one, Evaluation) and one.memory is not None]
        return replace(first, memory=max(memory, default=None))
    return first
