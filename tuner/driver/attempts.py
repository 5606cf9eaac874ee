"""The attempts at trials of one session, and the state that each is in.

    RUNNING   its worker reports
    DRAINING  its node is about to go: it was asked to save its state, and is given up at its next report
    HUNG      it showed no progress and was killed; Ray will report the end of its worker
    DRAINED   it was given up because its node goes; its worker is to be ended, and the trial goes on elsewhere
    STOPPED   a person ended the trial; Ray's scheduler has to be told
    OVER      the trial has its ending, or this attempt was given up

An attempt counts while it is RUNNING, DRAINING or HUNG. What its worker reports after that is dropped. At most one
attempt at a trial counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuner.contract import Fit, Verdict


class State(StrEnum):
    """What an attempt at a trial is doing, as the driver knows it."""

    RUNNING = "running"
    DRAINING = "draining"
    HUNG = "hung"
    DRAINED = "drained"
    STOPPED = "stopped"
    OVER = "over"


_ENDS = frozenset({State.DRAINED, State.STOPPED, State.OVER})
TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.RUNNING: frozenset({State.DRAINING, State.HUNG}) | _ENDS,
    State.DRAINING: frozenset({State.HUNG}) | _ENDS,
    State.HUNG: _ENDS,
    State.DRAINED: frozenset(),
    State.STOPPED: frozenset(),
    State.OVER: frozenset(),
}
"""The states that may follow each state."""
COUNTS = frozenset({State.RUNNING, State.DRAINING, State.HUNG})
"""The states of an attempt whose reports count."""


@dataclass
class Attempt:
    """One attempt at a trial."""

    trial_id: str
    """Ray's id of its trial object, of which every attempt has its own."""
    number: int
    """The number of the trial."""
    attempt: int
    """Which attempt at the trial it is, from 1."""
    fits: Mapping[str, Fit]
    """The arrangements for devices that its assignment had, by name of the device."""
    state: State = State.RUNNING
    verdict: Verdict | None = None
    """Its ending, where that was decided before Ray reports the end of its worker."""

    @property
    def counts(self) -> bool:
        """Whether its reports count."""
        return self.state in COUNTS

    def move(self, state: State) -> None:
        """Changes the state. Raises ValueError where the new one may not follow the present one."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"attempt {self.attempt} at trial {self.number} is {self.state}, and cannot be {state}")
        self.state = state


class Attempts:
    """The attempts of a session, by Ray's ids and by the numbers of their trials."""

    def __init__(self) -> None:
        self._by_id: dict[str, Attempt] = {}
        self._last: dict[int, Attempt] = {}

    def begin(self, trial_id: str, number: int, attempt: int, fits: Mapping[str, Fit]) -> Attempt:
        """Adds a new attempt. Raises ValueError where another one at the trial counts, or where Ray's id is taken."""
        if trial_id in self._by_id:
            raise ValueError(f"{trial_id} has begun already")
        if (other := self.of(number)) is not None:
            raise ValueError(f"attempt {other.attempt} at trial {number} is {other.state}, and {attempt} cannot begin")
        begun = Attempt(trial_id, number, attempt, dict(fits))
        self._by_id[trial_id] = self._last[number] = begun
        return begun

    def __getitem__(self, trial_id: str) -> Attempt:
        return self._by_id[trial_id]

    def state(self, trial_id: str) -> State | None:
        """The state of an attempt; None for one that has not begun."""
        found = self._by_id.get(trial_id)
        return found.state if found else None

    def counting(self, trial_id: str) -> Attempt | None:
        """The attempt with this id, if its reports count."""
        found = self._by_id.get(trial_id)
        return found if found and found.counts else None

    def of(self, number: int) -> Attempt | None:
        """The attempt at a trial whose reports count, if there is one."""
        found = self._last.get(number)
        return found if found and found.counts else None
