"""The base class of an algorithm: curve and peers in, decision out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tuner.contract import Objective, Reason, Verdict
from tuner.scheduling.ladder import Ladder, Spacing
from tuner.scheduling.peers import Peers
from tuner.scheduling.rules import Curve, Rule


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial after an evaluation. `Decision()` lets it go on."""

    verdict: Verdict | None = None
    """How the trial ends; None where it does not."""
    pauses: bool = False
    """Whether the trial is parked: it keeps its state, frees its worker, and has no ending yet."""

    @property
    def goes_on(self) -> bool:
        """Whether the trial trains on."""
        return self.verdict is None and not self.pauses


CONTINUE = Decision()
PAUSE = Decision(pauses=True)


def stop(verdict: Verdict) -> Decision:
    """The decision that a trial ends with `verdict`."""
    return Decision(verdict)


@dataclass(frozen=True)
class Candidate:
    """A trial as an algorithm sees it."""

    number: int
    curve: Curve
    """Never empty; its last reading is the evaluation that is judged."""
    finished: bool = False
    """Whether it is at the end of its budget."""
    spared: bool = False
    """Whether it goes on however far it is behind others, as the recipe does. Its values count for others all the
    same."""


@dataclass(frozen=True)
class AlgorithmContext:
    """What every algorithm of a search is made with."""

    objective: Objective
    max_t: int
    """The full budget of a trial, in steps or tokens."""
    before: tuple[Rule, ...] = ()
    """Rules that are asked ahead of the comparison."""
    after: tuple[Rule, ...] = ()
    """Rules that are asked where the comparison lets the trial go on."""


class Algorithm(ABC):
    """Decides after every evaluation what becomes of a trial, and which of the parked ones goes on.

    An algorithm has settings and no state: what it knows of other trials is in `peers`. The same question always gets
    the same answer, so a resumed search reaches the decisions that it had reached before.
    """

    def __init__(self, context: AlgorithmContext) -> None:
        self.context: Final = context

    @property
    def milestones(self) -> tuple[float, ...]:
        """Where trials are compared, in steps or tokens, ascending; () where they are not."""
        return ()

    @property
    def parks_at(self) -> tuple[float, ...]:
        """Milestones at which a trial may be parked: its state is saved there, whatever that costs."""
        return ()

    def decide(self, trial: Candidate, peers: Peers) -> Decision:
        """The decision on a trial's newest evaluation, which `peers` does not know yet."""
        if verdict := self.unusable(trial.curve):
            return stop(verdict)
        if trial.finished:
            return stop(Verdict(Reason.BUDGET, "budget"))
        decision = CONTINUE if trial.spared else self.compare(trial, peers)
        if not decision.goes_on:
            return decision
        verdicts = (rule.judge(trial.curve) for rule in self.context.after)
        return next((stop(verdict) for verdict in verdicts if verdict), CONTINUE)

    def unusable(self, curve: Curve) -> Verdict | None:
        """The verdict on a newest value that must not be compared with others: it is missing, not finite, or diverged.
        None for any other value."""
        verdicts = (rule.judge(curve) for rule in self.context.before)
        return next((verdict for verdict in verdicts if verdict), None)

    @abstractmethod
    def compare(self, trial: Candidate, peers: Peers) -> Decision:
        """The decision that needs the other trials."""

    def promote(self, parked: Sequence[Candidate], peers: Peers, more: bool) -> int | None:
        """The number of the parked trial that goes on; None where none does now. Asked whenever a worker is free.

        more: whether trials run or are still to begin, which may yet reach the rungs. Where there are none and nothing
        is promoted, the parked trials end (`conclude`).
        """
        return None

    def conclude(self, trial: Candidate, peers: Peers) -> Verdict:
        """The ending of a parked trial that is not promoted any more."""
        return Verdict(Reason.RUNG, f"parked at {trial.curve[-1].resource:,}, others went on")


@dataclass(frozen=True)
class Registered:
    """An algorithm as `scheduler.kind` finds it. All three functions get the `scheduler` settings of the search
    file."""

    spacing: Callable[[Any], Spacing | None]
    """How its rungs are spaced; None for no rungs."""
    build: Callable[[Any, Ladder, AlgorithmContext], Algorithm]
    """Makes the algorithm."""
    describe: Callable[[Any, str], str]
    """What `plan` says of its rungs: given their places in words, "step 4, 12, 36 of 100", or "" for none."""


NO_RUNGS = "none: no trial is stopped for being behind others"
"""What `plan` says where no trial is compared with others."""
