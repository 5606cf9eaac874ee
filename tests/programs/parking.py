"""A scheduling algorithm that parks: every trial at its first rung, of which the best third goes on.

Asynchronous successive halving as in its paper (Li et al. 2018), with one rung. It replaces `asha` in the process that
calls `install`; a search needs it in its driver alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.scheduling.algorithms import ALGORITHMS, CONTINUE, PAUSE, Algorithm, AlgorithmContext, Candidate, Decision
from tuner.scheduling.algorithms.asha import REGISTERED as ASHA
from tuner.scheduling.peers import Peers

FACTOR = 3


class Parking(Algorithm):
    """The algorithm; see the module. rung: in steps or tokens."""

    def __init__(self, context: AlgorithmContext, rung: float) -> None:
        super().__init__(context)
        self._rung = rung

    @property
    def milestones(self) -> tuple[float, ...]:
        return (self._rung,)

    @property
    def parks_at(self) -> tuple[float, ...]:
        return (self._rung,)

    def compare(self, trial: Candidate, peers: Peers) -> Decision:
        return CONTINUE if peers.due(trial.number, trial.curve[-1].resource) is None else PAUSE

    def promote(self, parked: Sequence[Candidate], peers: Peers, more: bool) -> int | None:
        scores = peers.rungs[0].scores
        best = sorted(scores, key=lambda number: scores[number], reverse=True)[: len(scores) // FACTOR]
        waiting = {candidate.number for candidate in parked}
        return next((number for number in best if number in waiting), None)


PARKING = replace(ASHA, build=lambda settings, ladder, context: Parking(context, ladder.rungs[0]))


def install() -> None:
    """Makes `scheduler.kind: asha` park trials from now on."""
    ALGORITHMS["asha"] = PARKING


INSTALL = "from tests.programs.parking import install; install()"
"""Code that calls `install` in a driver's process."""
