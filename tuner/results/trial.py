"""One trial as its events tell it: its point of the space, its curve, its ending."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.contract import EVAL_LOSS, Objective, Reason, Status, Verdict


@dataclass(frozen=True)
class Point:
    """One evaluation of a trial: `contract.Evaluation` as the ledger has it."""

    step: int
    tokens: int
    value: float | None
    """Of the search's first objective."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """All that was measured, by name."""
    train_loss: float | None = None
    seconds: float = 0.0
    memory: int | None = None
    resource: int = 0
    """Its place on the ladder: steps or tokens of the budget."""

    @property
    def is_finite(self) -> bool:
        """Whether the value is a number that can be compared."""
        return self.value is not None and math.isfinite(self.value)


@dataclass
class TrialRecord:
    """One trial: its point of the space, its curve and its ending."""

    number: int
    objective: Objective = EVAL_LOSS
    """What the search makes better, and what `value` and `best` of a trial go by."""
    params: dict[str, Any] = field(default_factory=dict)
    trial: str = ""
    attempt: int = 1
    distributions: dict[str, str] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: Status | None = None
    reason: Reason | None = None
    message: str = ""
    remedy: str = ""
    traceback: str = ""
    interrupted: bool = False
    """Whether a signal or a lost driver cut it off: it has no ending, and a resume goes on with it."""
    parked: bool = False
    """Whether it waits, with its state and without an ending, for the scheduler to have it go on."""
    to_park: bool = False
    """Whether its last evaluation was judged so: `parked` follows in a line of its own."""
    started: float | None = None
    ended: float | None = None
    adapter: str | None = None
    earlier_tokens: int = 0
    added_by: str = ""
    """Who suggested it, where it was not the sampler: "user"."""
    judged: Verdict | None = None
    """What the last evaluation was judged, if that ends the trial: the ending follows in a line of its own."""
    losses: dict[str, int] = field(default_factory=dict)
    """How often an attempt at it was lost, by reason."""
    retry: str = ""
    """Why it is to be tried again, while it is."""

    def take_up(self, before: TrialRecord) -> None:
        """What an earlier attempt left, until this one's set-up says whether it goes on from there."""
        self.points, self.adapter, self.judged = list(before.points), before.adapter, before.judged
        self.earlier_tokens, self.losses = before.earlier_tokens, dict(before.losses)

    def begin_anew(self) -> None:
        """This attempt begins at step 0: what was spent before is all that stays of it."""
        self.earlier_tokens = self.tokens
        self.points, self.adapter, self.judged, self.to_park = [], None, None, False

    @property
    def has_ended(self) -> bool:
        return self.status is not None

    @property
    def is_running(self) -> bool:
        return self.status is None and not self.interrupted and not self.parked

    @property
    def state(self) -> str:
        """Its status in one word; of a trial without an ending "running", "parked" or "interrupted"."""
        if self.status is not None:
            return str(self.status)
        return "interrupted" if self.interrupted else "parked" if self.parked else "running"

    @property
    def is_usable(self) -> bool:
        """Ended with a finite value that may be compared: converged, finished, or stopped at a rung or by a person."""
        return self.best is not None and (self.status is Status.COMPLETED or self.reason in (Reason.RUNG, Reason.USER))

    @property
    def step(self) -> int:
        return self.points[-1].step if self.points else 0

    @property
    def max_steps(self) -> int | None:
        return self.setup.get("max_steps")

    @property
    def tokens(self) -> int:
        """Training tokens spent on this trial, over all its attempts."""
        return self.earlier_tokens + (self.points[-1].tokens if self.points else 0)

    @property
    def full_tokens(self) -> float:
        """Training tokens that the whole budget of this trial would have cost, from its own rate so far."""
        if not self.points or not self.max_steps or not self.step:
            return 0.0
        return self.points[-1].tokens * self.max_steps / self.step

    @property
    def value(self) -> float | None:
        """The last value; None where the last evaluation has none."""
        return self.points[-1].value if self.points else None

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """What the last evaluation measured, by name."""
        return self.points[-1].metrics if self.points else {}

    @property
    def best(self) -> Point | None:
        """The first evaluation with the best finite value."""
        finite = [p for p in self.points if p.is_finite]
        return min(finite, key=lambda p: self.objective.cost(p.value or 0.0)) if finite else None

    @property
    def best_value(self) -> float | None:
        """The best finite value; None where there is none."""
        return self.best.value if self.best else None

    @property
    def best_metrics(self) -> Mapping[str, float | None]:
        """What the best evaluation measured, by name."""
        return self.best.metrics if self.best else {}

    @property
    def curve(self) -> list[float]:
        """The finite values, oldest first."""
        return [p.value for p in self.points if p.is_finite and p.value is not None]

    @property
    def ending(self) -> str:
        """The ending in words: "pruned: rung 1 (6.402, needed 5.910)"."""
        if self.retry:
            return f"to be tried again: {self.retry}"
        if self.interrupted:
            return "interrupted: a resume goes on with it"
        if self.parked:
            return "parked: it goes on if the scheduler chooses it"
        if self.status is None:
            return "running"
        what = self.message or str(self.reason)
        return f"{self.status}: {what}"
