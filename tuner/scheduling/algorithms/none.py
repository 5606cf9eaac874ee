"""No comparison: every trial runs its full budget unless a rule ends it."""

from __future__ import annotations

from tuner.scheduling.algorithms.base import CONTINUE, NO_RUNGS, Algorithm, Candidate, Decision, Registered
from tuner.scheduling.peers import Peers


class NoComparison(Algorithm):
    """Lets every trial go on; the rules alone end one."""

    def compare(self, trial: Candidate, peers: Peers) -> Decision:
        return CONTINUE


REGISTERED = Registered(
    spacing=lambda settings: None,
    build=lambda settings, ladder, context: NoComparison(context),
    describe=lambda settings, places: NO_RUNGS,
)
