"""The record of one trial, from its events: its point of the space, its curve, its ending."""

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
    """Optimizer steps taken."""
    tokens: int
    """Training tokens seen, padding excluded."""
    value: float | None
    """The value of what trials are compared by while they run; None if it was not measured."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """All that was measured, by name."""
    train_loss: float | None = None
    """Mean training loss since the evaluation before."""
    seconds: float = 0.0
    """Seconds since the start of the attempt, set-up included."""
    memory: int | None = None
    """Peak bytes of accelerator memory; None where it is not known."""
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
    """Its number in the search, from 0."""
    objective: Objective = EVAL_LOSS
    """What the search makes better; `best` is a value of it."""
    compares: Objective | None = None
    """What it is compared by while it runs, where `objective` is measured at its end alone; None: `objective`. `value`
    and `curve` are values of it."""
    params: dict[str, Any] = field(default_factory=dict)
    """Its point of the space: values by parameter."""
    trial: str = ""
    """Ray's id of its last attempt."""
    attempt: int = 1
    """The number of its last attempt, from 1."""
    distributions: dict[str, str] = field(default_factory=dict)
    """What each parameter was drawn from, as Optuna's JSON."""
    setup: dict[str, Any] = field(default_factory=dict)
    """What its set-up reported, such as `max_steps`."""
    points: list[Point] = field(default_factory=list)
    """Its evaluations, oldest first."""
    status: Status | None = None
    """How it ended; None while it has no ending."""
    reason: Reason | None = None
    """Why it ended; None while it has no ending."""
    message: str = ""
    """The ending in words."""
    remedy: str = ""
    """What the user can do about the ending."""
    traceback: str = ""
    """Of the program, if it raised."""
    interrupted: bool = False
    """Whether a signal or the loss of its driver or worker cut it off: it has no ending and will be run again."""
    parked: bool = False
    """Whether it has no ending and waits, with a saved state, until the scheduler lets it go on."""
    to_park: bool = False
    """Whether its last evaluation is to park it: the `parked` event follows."""
    started: float | None = None
    """Time of its last attempt's start, in seconds since 1970."""
    set_up: float | None = None
    """Time of its last attempt's set-up, in seconds since 1970; None before it."""
    heard: float | None = None
    """Time of its last attempt's last evaluation, in seconds since 1970; None before the first."""
    ended: float | None = None
    """Time of its ending, or of the last interruption, in seconds since 1970."""
    ended_at: float = 0.0
    """Seconds of the search, over all its sessions, at its ending."""
    adapter: str | None = None
    """Its last adapter's place, relative to the run folder."""
    earlier_step: int = 0
    """Optimizer steps at the last evaluation of the attempt before; 0 of the first attempt."""
    earlier_tokens: int = 0
    """Training tokens of attempts that the last one does not go on from."""
    added_by: str = ""
    """Who added it ("user"); "" if the sampler drew it."""
    judged: Verdict | None = None
    """The verdict on its last evaluation, if that ends it: the `ended` event follows."""
    losses: dict[str, int] = field(default_factory=dict)
    """How many of its attempts were lost, by reason."""
    retry: str = ""
    """Why it is to be tried again; "" if it is not."""

    def take_up(self, before: TrialRecord) -> None:
        """Takes over the curve of the attempt before, until this one's set-up says whether it goes on from there."""
        self.points, self.adapter, self.judged = list(before.points), before.adapter, before.judged
        self.earlier_tokens, self.losses = before.earlier_tokens, dict(before.losses)
        self.earlier_step = before.step

    def begin_anew(self) -> None:
        """Drops the curve of the attempts before, because this one begins at step 0; their tokens still count."""
        self.earlier_tokens = self.tokens
        self.points, self.adapter, self.judged, self.to_park = [], None, None, False

    @property
    def has_ended(self) -> bool:
        """Whether it has an ending."""
        return self.status is not None

    @property
    def is_running(self) -> bool:
        """Whether it runs now: it has no ending and is neither interrupted nor parked."""
        return self.status is None and not self.interrupted and not self.parked

    @property
    def state(self) -> str:
        """Its status; without an ending "running", "parked" or "interrupted"."""
        if self.status is not None:
            return str(self.status)
        return "interrupted" if self.interrupted else "parked" if self.parked else "running"

    @property
    def is_usable(self) -> bool:
        """Whether it ended with a finite value that may be compared: completed, or stopped at a rung or by a person."""
        counts = self.status is Status.COMPLETED or self.reason in (Reason.RUNG, Reason.USER)
        return counts and self.best is not None

    @property
    def step(self) -> int:
        """Optimizer steps taken at its last evaluation; 0 before the first."""
        return self.points[-1].step if self.points else 0

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps of its full budget; None before its set-up."""
        return self.setup.get("max_steps")

    @property
    def tokens(self) -> int:
        """Training tokens spent on this trial, over all its attempts."""
        return self.earlier_tokens + (self.points[-1].tokens if self.points else 0)

    @property
    def full_tokens(self) -> float:
        """Training tokens of this trial's full budget, from its tokens a step so far; 0 before the first report."""
        if not self.points or not self.max_steps or not self.step:
            return 0.0
        return self.points[-1].tokens * self.max_steps / self.step

    def seconds(self, now: float) -> float:
        """The seconds that its last attempt has taken at a time, in seconds since 1970; 0 before its start."""
        return max(0.0, (now if self.is_running else self.ended or now) - self.started) if self.started else 0.0

    @property
    def trained_s(self) -> float:
        """The seconds from its last attempt's set-up to its last evaluation; 0 before that."""
        return max(0.0, self.heard - self.set_up) if self.heard and self.set_up else 0.0

    @property
    def speed(self) -> float:
        """Training tokens a second of its last attempt, evaluations included; 0 before its first evaluation."""
        begun = self.setup.get("resumed_step") or 0
        before = next((p.tokens for p in reversed(self.points) if p.step <= begun), 0)
        return max(0, self.points[-1].tokens - before) / self.trained_s if self.points and self.trained_s else 0.0

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
        """The first evaluation with the best finite value of the objective."""
        return self.objective.best(self.points, self._of)

    @property
    def best_value(self) -> float | None:
        """The best finite value; None where there is none."""
        return None if self.best is None else self._of(self.best)

    def _of(self, point: Point) -> float | None:
        """The objective's value of an evaluation; None where it is none, or not finite."""
        value = point.value if self.compares is None else point.metrics.get(self.objective.name)
        return value if value is not None and math.isfinite(value) else None

    @property
    def compared_by(self) -> Objective:
        """What it is compared by while it runs."""
        return self.compares or self.objective

    def intermediate(self, value: float | None) -> float | None:
        """A value of what it is compared by, with the sign with which the objective's direction is better: a study has
        one direction for both."""
        return value if value is None or self.compares is None else self.objective.cost(self.compared_by.cost(value))

    @property
    def best_metrics(self) -> Mapping[str, float | None]:
        """What the best evaluation measured, by name."""
        return self.best.metrics if self.best else {}

    def last(self, name: str) -> float | None:
        """The last value of a metric that was measured; None where none was."""
        return next((value for p in reversed(self.points) if (value := p.metrics.get(name)) is not None), None)

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


@dataclass(frozen=True)
class Addition:
    """A point that somebody added to a running search."""

    name: str
    """Its id, which the trial's `started` event names."""
    params: dict[str, Any]
    """The values that were given; the sampler draws the others."""
    by: str
    """Who added it: "user"."""


def verdict_of(values: Any) -> Verdict | None:
    """The verdict in the details of an event; None where there is none."""
    if not values:
        return None
    return Verdict(Reason(values["reason"]), str(values.get("message", "")), str(values.get("remedy", "")))


def number_of(value: Any) -> float | None:
    """The number in the details of an event; None where there is none."""
    return None if value is None else float(value)
