"""Process groups without Ray: each process runs a script of trials, and reports what it has seen."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from tuner.contract import Assignment, Evaluation, Fault, Group, Preparation, Setup

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TUNER_STATE_EVERY_S": "0", "MASTER_ADDR": "127.0.0.1"}


@dataclass(frozen=True)
class Trial:
    """A trial to run. evaluations: their number, after which it is stopped; None: all. frozen: "parameters": nothing of
    it is trainable; "scale": the adapter has no effect, so no gradient reaches it; "": neither."""

    assignment: Assignment
    evaluations: int | None = None
    frozen: str = ""


@dataclass(frozen=True)
class Script:
    """The trials that one program runs. strategy: of its process group, "ddp" or "fsdp"."""

    strategy: str
    settings: Mapping[str, Any]
    preparation: Preparation
    trials: Sequence[Trial]


@dataclass(frozen=True)
class Seen:
    """What a process has seen of a trial. shared: the number of parameters of which it held only its shard. fault: the
    one that ended the trial."""

    setup: Setup
    curve: list[Evaluation]
    shared: int
    fault: Fault | None = None


def play(scripts: Sequence[Script], size: int = 2) -> list[list[list[Seen]]]:
    """Runs the scripts in `size` processes; gives what they have seen, by process, script and trial."""
    context = get_context("spawn")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said: Any = context.Queue()
    processes = [context.Process(target=_act, args=(rank, size, port, scripts, said)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        found = dict(said.get(timeout=300) for _ in processes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    for trouble in found.values():
        assert not isinstance(trouble, str), trouble
    return [found[rank] for rank in range(size)]


def _act(rank: int, size: int, port: int, scripts: Sequence[Script], said: Any) -> None:
    os.environ |= ENVIRONMENT | {
        "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
    }  # fmt: skip
    try:
        import torch
        from torch import distributed

        torch.set_num_threads(1)
        distributed.init_process_group("gloo", rank=rank, world_size=size)
        said.put((rank, [_played(script, Group(rank, size, script.strategy)) for script in scripts]))
        distributed.barrier()
    except BaseException:
        said.put((rank, traceback.format_exc()))


def _played(script: Script, group: Group) -> list[Seen]:
    from trainables.sft import SFT

    program = SFT(script.settings, script.preparation, group)
    return [_run(program, trial) for trial in script.trials]


def _run(program: Any, trial: Trial) -> Seen:
    from torch.distributed.tensor import DTensor

    setup = program.start(trial.assignment)
    model = program.trial.trainer.model
    if trial.frozen == "parameters":
        model.requires_grad_(False)
    if trial.frozen == "scale":
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling["default"] = 0.0
    curve: list[Evaluation] = []
    shared, fault = 0, None
    try:
        while len(curve) != trial.evaluations and not (curve and curve[-1].done):
            curve.append(program.step())
            shared = sum(isinstance(tensor, DTensor) for tensor in program.trial.trainer.model.parameters())
    except Fault as met:
        fault = met
    program.stop()
    return Seen(setup, curve, shared, fault)
