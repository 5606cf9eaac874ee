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
    """Why a trial ended. Every ending has exactly one."""

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
        return _STATUS[self]

    @property
    def halts_search(self) -> bool:
        """A fault of the set-up, not of the sample: every further trial would fail the same way."""
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
    """How a trial is arranged to fit into a device's memory. micro_batch: rows a forward pass, at most; what is learned
    from a step stays, because accumulation makes up for it. gradient_checkpointing: activations are computed again."""

    micro_batch: int
    gradient_checkpointing: bool = False

    def within(self, other: Fit | None) -> Fit:
        """What keeps to both."""
        if other is None:
            return self
        return Fit(
            min(self.micro_batch, other.micro_batch), self.gradient_checkpointing or other.gradient_checkpointing
        )

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch}" + (", gradient checkpointing" if self.gradient_checkpointing else "")


@dataclass(frozen=True)
class Verdict:
    """The end of a trial and its reason, as the user reads it ("rung 2: 2.41, needed 2.17").

    device, fit: with `out_of_memory`, what it did not fit into, and the next smaller arrangement; None: there is none.
    """

    reason: Reason
    message: str = ""
    remedy: str = ""
    device: str = ""
    fit: Fit | None = None

    @property
    def status(self) -> Status:
        return self.reason.status


@dataclass(frozen=True)
class Preparation:
    """What a program made once for all trials, and what it learned about data and base while doing so.

    `facts` is JSON: it goes into `resolved.json` and onto the screen. `tokens` is the number of training tokens in
    one epoch (None where the word means nothing); with a budget in epochs it makes trials of different batch sizes
    comparable. `notes` are sentences for the user ("the tokenizer has no pad token: using its EOS token").
    """

    folder: str
    tokens: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """A whole trial's length: optimizer steps, or epochs where batch sizes differ."""

    steps: int | None
    epochs: float | None = None


STATE = "state"
"""The folder, below a trial's own, in which a program may keep what it needs to go on; deleted when the trial ends."""

ALIVE = "alive"
"""A file in that folder. A program that touches it between two evaluations is not taken for hung, however far apart the
evaluations are."""

CHECKPOINT_REQUEST = "leave"
"""Another one, which the driver puts there: the trial's node is about to go. A program that finds it keeps a state with
its next evaluation, however young the last one is."""

LEAVE = CHECKPOINT_REQUEST
"""Its name in 0.1."""


@dataclass(frozen=True)
class Resume:
    """Where a trial stands that was cut off or parked.

    A program that kept a state in one of the folders goes on from it, whether it lies before `step` (the evaluations up
    to there are known and count once) or one evaluation behind it (which was not heard of: it is handed over again).
    One that kept none begins at step 0.
    """

    step: int
    """The last step on record; 0 before the first evaluation."""
    best: float | None
    """The best value on record of the program's first objective; None before the first evaluation."""
    folders: tuple[str, ...]
    """Those of the trial's earlier attempts, the newest first."""

    @property
    def best_eval_loss(self) -> float | None:
        """`best`, for a program whose first objective is `eval_loss`."""
        return self.best


@dataclass(frozen=True)
class Assignment:
    """One trial for a worker: a point of the space and where its adapter goes.

    `evaluate_at` are fractions of the trial's steps in (0, 1], ascending, 1.0 last; the same for every trial, so
    that curves are compared at the same place. `folder` exists when `start` is called and belongs to this attempt at
    the trial alone: one that was given up for dead may still be writing elsewhere. `resume`: from an attempt that was
    cut off or parked. `fits`: what was learned about devices' memory, by name of the device. `save_state_at`: fractions
    of `evaluate_at` after which the trial may be parked: its state is to be saved there, however young the last one is.
    """

    number: int
    params: Mapping[str, Any]
    seed: int
    evaluate_at: tuple[float, ...]
    folder: str
    attempt: int = 1
    resume: Resume | None = None
    fits: Mapping[str, Fit] = field(default_factory=dict)
    save_state_at: tuple[float, ...] = ()

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
    """The processes that train one trial together, a GPU each. rank: this one's number; size: how many there are.

    strategy: ddp: each holds the whole base; fsdp: each holds a share of it. The processes share a torch process group
    by the time a program is made.
    """

    rank: int = 0
    size: int = 1
    strategy: str = "ddp"

    @property
    def leads(self) -> bool:
        """Whether this process writes files and is the one that is heard."""
        return self.rank == 0

    @property
    def shares_base(self) -> bool:
        """Whether no process holds the whole base."""
        return self.size > 1 and self.strategy == "fsdp"


ALONE = Group()
"""The one process of a trial that needs no other."""


@dataclass(frozen=True)
class Setup:
    """What a worker built for a trial, before its first step.

    resumed_step: the step it goes on from; 0: from the start. note: a sentence for the user, where what it should have
    gone on from could not be read.
    """

    max_steps: int
    trainable_parameters: int
    total_parameters: int
    details: Mapping[str, Any] = field(default_factory=dict)
    resumed_step: int = 0
    note: str = ""


@dataclass(frozen=True, init=False)
class Evaluation:
    """One measurement of a running trial."""

    step: int
    """Optimizer steps taken."""
    max_steps: int
    """In the whole trial."""
    metrics: Mapping[str, float | None]
    """What was measured, by name: every objective of the program, and whatever else is worth a look. A value may be
    None or not finite: the driver has rules for that."""
    tokens: int
    """Training tokens seen, padding excluded."""
    train_loss: float | None
    """Mean over the steps since the evaluation before."""
    seconds: float
    """Since `start`, set-up included."""
    memory: int | None
    """Peak accelerator bytes of this trial."""
    adapter: str | None
    """The folder the adapter was saved to, if this evaluation was the trial's best."""

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
        return self.step >= self.max_steps

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; `Evaluation(**values)` reads it."""
        return asdict(self)
