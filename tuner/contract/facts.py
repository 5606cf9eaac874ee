"""What the driver and a program tell each other about a trial, and the words for how it can end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from tuner.contract.objective import EVAL_LOSS


class Status(StrEnum):
    """How a trial ended, in one word."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"
    STOPPED = "stopped"


class Reason(StrEnum):
    """Why a trial ended. Every ending has exactly one reason; docs/stopping-and-judging.md explains each."""

    BUDGET = "budget"
    FLATLINE = "flatline"
    RUNG = "rung"
    DIVERGED = "diverged"
    FROZEN = "frozen"
    OUT_OF_MEMORY = "out_of_memory"
    DATA = "data"
    CONFIG = "config"
    INFRASTRUCTURE = "infrastructure"
    HUNG = "hung"
    ERROR = "error"
    USER = "user"
    SEARCH = "search"

    @property
    def status(self) -> Status:
        """The status of every trial that ended for this reason."""
        return _STATUS[self]

    @property
    def halts_search(self) -> bool:
        """Whether the set-up is at fault and not the sample: every further trial would fail the same way."""
        return self in (Reason.FROZEN, Reason.DATA, Reason.CONFIG)


_STATUS = {
    Reason.BUDGET: Status.COMPLETED,
    Reason.FLATLINE: Status.COMPLETED,
    Reason.RUNG: Status.PRUNED,
    Reason.DIVERGED: Status.PRUNED,
    Reason.FROZEN: Status.FAILED,
    Reason.OUT_OF_MEMORY: Status.FAILED,
    Reason.DATA: Status.FAILED,
    Reason.CONFIG: Status.FAILED,
    Reason.INFRASTRUCTURE: Status.FAILED,
    Reason.HUNG: Status.FAILED,
    Reason.ERROR: Status.FAILED,
    Reason.USER: Status.STOPPED,
    Reason.SEARCH: Status.STOPPED,
}


@dataclass(frozen=True)
class Fit:
    """How a trial is arranged to fit into a device's memory. An optimizer step learns the same in every arrangement:
    gradient accumulation makes up for a smaller micro-batch."""

    micro_batch: int
    """Rows in one forward pass, at most."""
    gradient_checkpointing: bool = False
    """Whether the backward pass computes activations again instead of keeping them."""

    def within(self, other: Fit | None) -> Fit:
        """The arrangement that exceeds neither this one nor `other`."""
        if other is None:
            return self
        return Fit(
            min(self.micro_batch, other.micro_batch), self.gradient_checkpointing or other.gradient_checkpointing
        )

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch}" + (", gradient checkpointing" if self.gradient_checkpointing else "")


@dataclass(frozen=True)
class Verdict:
    """How a trial ends, and why."""

    reason: Reason
    message: str = ""
    """The reason as the user reads it ("rung 2 (2.410, needed 2.170)")."""
    remedy: str = ""
    """What the user can do about it; "" for nothing."""
    device: str = ""
    """With `out_of_memory`, the name of the device that the trial did not fit into."""
    fit: Fit | None = None
    """With `out_of_memory`, the next smaller arrangement; None where there is none."""

    @property
    def status(self) -> Status:
        """The status that its reason has."""
        return self.reason.status


@dataclass(frozen=True)
class Preparation:
    """What a program made once for all trials, and what it learned about data and base while doing so."""

    folder: str
    """Where the prepared data lies."""
    tokens: int | None = None
    """Training tokens in one epoch; None where the program has no tokens. With a budget in epochs they make trials of
    different batch sizes comparable."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it learned about data and base, as JSON: shown to the user, and written into the ledger."""
    notes: tuple[str, ...] = ()
    """Sentences for the user ("the tokenizer has no pad token: using its EOS token")."""


@dataclass(frozen=True)
class Budget:
    """The length of a trial that is not stopped early."""

    steps: int | None
    """Optimizer steps; None where the length is given in epochs, because batch sizes differ between trials."""
    epochs: float | None = None


@dataclass(frozen=True)
class TrialSize:
    """How long a whole trial is."""

    steps: int
    """Optimizer steps."""
    tokens: float
    """Training tokens."""


STATE = "state"
"""The folder, inside a trial's own, in which a program may save the trial's state; deleted when the trial ends."""

ALIVE = "alive"
"""The heartbeat: a file in the folder `STATE`. A program that touches it between two evaluations is not taken for hung,
however far apart the evaluations are."""

CHECKPOINT_REQUEST = "leave"
"""A file in the folder `STATE` that the driver creates when the trial's node is about to go. A program that finds it
saves a state with its next evaluation, however recent the last state is."""

COMPANIONS = "companions"
"""The folder, inside the cache that `prepare` gets, in which a program may leave files that belong beside every adapter
(a tokenizer); `best/` gets a copy of them."""

SUMS = "sums.json"
"""A file that a program may write into an adapter's folder: by name, the SHA-256 of each other file in it. An adapter
that does not fit them is damaged: it does not become `best/`, and nothing is measured or trained with it."""

LEAVE = CHECKPOINT_REQUEST
"""The name of CHECKPOINT_REQUEST in version 0.1."""


@dataclass(frozen=True)
class Resume:
    """Where a trial stands that was cut off or parked.

    A program that saved a state in one of the folders goes on from that. The state may be older than `step`: the
    evaluations up to `step` then come again, and count once. It may also be one evaluation newer, where the driver did
    not receive that evaluation: the program returns it again. A program that saved no state begins at step 0.
    """

    step: int
    """The optimizer step of the last evaluation on record; 0 before the first one."""
    best: float | None
    """The best value on record of the program's first objective that is always measured; None before the first
    evaluation."""
    folders: tuple[str, ...]
    """The folders of the trial's earlier attempts, the newest first."""

    @property
    def best_eval_loss(self) -> float | None:
        """`best`, for a program whose first objective is `eval_loss`."""
        return self.best


@dataclass(frozen=True)
class Assignment:
    """One trial for a worker: a point of the space, when to evaluate it, and where its files go."""

    number: int
    """The number of the trial, from 0."""
    params: Mapping[str, Any]
    """The values of the point, by short name of the parameter."""
    seed: int
    evaluate_at: tuple[float, ...]
    """Shares of the trial's steps in (0, 1], ascending, 1.0 last; the same for every trial, so that curves are compared
    at the same place."""
    folder: str
    """Exists when `start` is called, and belongs to this attempt alone: an earlier attempt that was given up for dead
    may still be writing into its own."""
    attempt: int = 1
    """Which attempt at the trial this is, from 1."""
    resume: Resume | None = None
    """Where an attempt goes on that follows one that was cut off or parked; None at the first attempt."""
    fits: Mapping[str, Fit] = field(default_factory=dict)
    """The arrangements that trials needed on devices where they ran out of memory, by name of the device."""
    save_state_at: tuple[float, ...] = ()
    """Those of `evaluate_at` after which the trial may be parked: its state is to be saved there, however recent the
    last state is."""

    def evaluation_steps(self, max_steps: int) -> tuple[int, ...]:
        """The steps after which a trial of `max_steps` is evaluated: each share rounded up, each step once.

        Up and not to nearest: a trial must have reached a rung's share when it is compared there.
        """
        return tuple(sorted(_steps_at(self.evaluate_at, max_steps) | {max_steps}))

    def state_steps(self, max_steps: int) -> frozenset[int]:
        """The steps of `evaluation_steps` after which the state of a trial of `max_steps` is to be saved."""
        return frozenset(_steps_at(self.save_state_at, max_steps))


def _steps_at(shares: tuple[float, ...], max_steps: int) -> set[int]:
    return {min(max_steps, max(1, math.ceil(share * max_steps - 1e-9))) for share in shares}


@dataclass(frozen=True)
class Group:
    """The processes that train one trial together, a GPU each.

    Their torch process group is initialized before a program is constructed.
    """

    rank: int = 0
    """This process's rank, from 0."""
    size: int = 1
    """How many processes there are (torch's world size)."""
    strategy: str = "ddp"
    """"ddp": each process holds the complete base; "fsdp": each holds a shard of it."""

    @property
    def leads(self) -> bool:
        """Whether this process writes the files, and its answers are the trial's."""
        return self.rank == 0

    @property
    def shares_base(self) -> bool:
        """Whether the base is sharded: no process holds all of it."""
        return self.size > 1 and self.strategy == "fsdp"


ALONE = Group()
"""The group of a trial that one process trains."""


@dataclass(frozen=True)
class Setup:
    """What a worker built for a trial, before its first step."""

    max_steps: int
    """Optimizer steps of the trial if it is not stopped early."""
    trainable_parameters: int
    total_parameters: int
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else the program tells of the set-up, as JSON."""
    resumed_step: int = 0
    """The optimizer step that the trial goes on from; 0 for a trial from the start."""
    note: str = ""
    """A sentence for the user where a saved state could not be read; else ""."""
    parts: str = ""
    """In words: which parts of the model are trained, and which not ("language: attention 4.2M, mlp 8.0M; vision:
    none"); "" where the program does not say."""


@dataclass(frozen=True, init=False)
class Evaluation:
    """One measurement of a running trial."""

    step: int
    """Optimizer steps taken."""
    max_steps: int
    """Optimizer steps of the trial if it is not stopped early."""
    metrics: Mapping[str, float | None]
    """What was measured, by name: every objective of the program, and whatever else is worth a look. A value may be
    None or not finite: the driver has rules for that."""
    tokens: int
    """Training tokens seen, padding excluded."""
    train_loss: float | None
    """Mean training loss over the steps since the evaluation before; None where it is not known."""
    seconds: float
    """Seconds since `start`, set-up included."""
    memory: int | None
    """Peak bytes of accelerator memory that this trial took; None where it is not known."""
    adapter: str | None
    """The folder that the adapter was saved to if this evaluation is the trial's best so far; else None."""

    def __init__(
        self,
        step: int,
        max_steps: int,
        eval_loss: float | None = None,
        tokens: int = 0,
        train_loss: float | None = None,
        seconds: float = 0.0,
        memory: int | None = None,
        adapter: str | None = None,
        *,
        metrics: Mapping[str, float | None] | None = None,
    ) -> None:
        """eval_loss: short for `metrics={"eval_loss": ...}`, mean validation loss."""
        measured = {**(metrics or {}), **({} if eval_loss is None else {EVAL_LOSS.name: eval_loss})}
        values = (step, max_steps, measured, tokens, train_loss, seconds, memory, adapter)
        for known, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, known.name, value)

    @property
    def eval_loss(self) -> float | None:
        """The metric of that name; None where there is none."""
        return self.metrics.get(EVAL_LOSS.name)

    @property
    def done(self) -> bool:
        """Whether the trial is at the end of its budget."""
        return self.step >= self.max_steps

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; `Evaluation(**values)` reads it."""
        return asdict(self)
