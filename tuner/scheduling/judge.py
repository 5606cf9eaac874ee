"""The one object that judges all trials of a search: an algorithm, and the values that it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tuner.contract import Verdict
from tuner.scheduling.algorithms.base import Algorithm, Candidate, Decision
from tuner.scheduling.peers import Peers
from tuner.scheduling.rules import Curve


class Judge:
    """Asks an algorithm about each evaluation, and notes its value at the rung where it was compared.

    history: for a resume, number and curve of every trial in the ledger, which fill the rungs again.
    """

    def __init__(self, algorithm: Algorithm, history: Iterable[tuple[int, Curve]] = ()) -> None:
        self._algorithm = algorithm
        self.objective: Final = algorithm.context.objective
        self.max_t: Final = algorithm.context.max_t
        """The full budget of a trial, in steps or tokens."""
        self.peers: Final = Peers(algorithm.milestones, self.objective)
        for number, curve in history:
            self._replay(number, curve)

    def decide(self, trial: Candidate) -> Decision:
        """The decision on the newest evaluation of a trial, which counts for others from now on."""
        decision = self._algorithm.decide(trial, self.peers)
        if not trial.finished and self._algorithm.unusable(trial.curve) is None:
            self.peers.note(trial.number, trial.curve[-1])
        return decision

    @property
    def parks_at(self) -> tuple[float, ...]:
        """Shares of the budget after which a trial may be parked."""
        return tuple(milestone / self.max_t for milestone in self._algorithm.parks_at)

    def promote(self, parked: Mapping[int, Curve], more: bool) -> int | None:
        """The number of the parked trial that goes on, as `Algorithm.promote` has it. Raises ValueError where the
        algorithm names a trial that is not parked."""
        waiting = [Candidate(number, curve) for number, curve in parked.items()]
        number = self._algorithm.promote(waiting, self.peers, more)
        if number is not None and number not in parked:
            raise ValueError(f"{type(self._algorithm).__name__} has trial {number} go on, which is not parked")
        return number

    def conclude(self, number: int, curve: Curve) -> Verdict:
        """The ending of a parked trial that does not go on."""
        return self._algorithm.conclude(Candidate(number, curve), self.peers)

    def _replay(self, number: int, curve: Curve) -> None:
        """Notes a trial of an earlier session where it was compared then."""
        for index, reading in enumerate(curve):
            if self._algorithm.unusable(curve[: index + 1]) is not None or reading.resource >= self.max_t:
                return
            self.peers.note(number, reading)
