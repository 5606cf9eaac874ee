"""A packed trial's side of an engine (engine_actor.py): a program whose every call goes to a slot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from tuner.contract import Assignment, Evaluation, Fault, Reason, Setup, load_program
from tuner.failures import Failure
from tuner.worker.config import Refused
from tuner.worker.engine_pool import EnginePool

ANSWERS_WITHIN_S = 5.0
"""An engine that stands answers at once how many slots it has free; one that is being made does not."""
MADE_ANEW_S = 180.0
"""For engines that died to stand again, on nodes that may have to come first; imports alone take 20 s."""


class EngineClient:
    """A trial's side of an engine: starts, steps and stops like any program."""

    def __init__(self, engines: EnginePool) -> None:
        self._all = engines
        self._engines: Sequence[Any] = ()
        self._engine: Any = None
        self._number = -1

    def start(self, assignment: Assignment) -> Setup:
        """Takes a slot of the engine with the most free ones; of the next where a neighbour took the last.

        There is a slot for every trial that Ray runs at a time, so one is found. A trial that cannot be packed waits
        for its turn beside an engine.
        """
        self._number = assignment.number
        packed = True
        if self._all.solos:  # the program is loaded where there is a choice: it is 0.2 s, beside many others
            packed = load_program(self._all.program).packs(self._all.settings, assignment.params) is None
        self._engines = self._all.packed if packed else self._all.solos
        if assignment.attempt > 1:  # an earlier attempt whose actor was lost may still hold a slot of any engine
            for engine in (*self._all.packed, *self._all.solos):
                engine.stop.remote(assignment.number)
        since = time.monotonic()
        while True:
            free = self._free(since)
            for place in sorted((place for place in free if free[place]), key=lambda place: -free[place]):
                self._engine = self._engines[place]
                setup = self._answer(self._call(self._engine.start, "set up").remote(assignment, self._all.preparation))
                if isinstance(setup, Refused):
                    self._go_beside(setup)
                    break
                if setup is not None:
                    return setup
            time.sleep(0.05 if free else 1.0)

    def _go_beside(self, refused: Refused) -> None:
        """Looks for a place beside an engine from now on. A trial for which there is none ends, and no other."""
        if not self._all.solos or self._engines is self._all.solos:
            raise Fault(Reason.ERROR, refused.why, "set resources.trials_per_gpu to 1")
        self._engines = self._all.solos

    def step(self) -> Evaluation:
        return self._answer(self._call(self._engine.step, "in its slot").remote(self._number))

    def stop(self) -> None:
        try:
            self._answer(self._engine.stop.remote(self._number))
        except Fault as fault:
            if not isinstance(fault.__cause__, RayActorError):  # else its trials went with it
                raise

    def _free(self, since: float) -> dict[int, int]:
        """The free slots of each engine that answers; one whose node is gone may wait for another for ever. Where all
        have died they are made anew, for which they get some minutes `since` the trial began to look."""
        asked = [engine.free.remote() for engine in self._engines]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWERS_WITHIN_S)
        found: dict[int, int] = {}
        dead: RayActorError | None = None
        for place, answer in enumerate(asked):
            try:
                found |= {place: ray.get(answer)} if answer in answered else {}
            except RayActorError as error:
                dead = error
        if dead is not None and not found and time.monotonic() - since > MADE_ANEW_S:
            raise Fault(Reason.INFRASTRUCTURE, "an engine died") from dead
        return found

    def _call(self, method: Any, what: str) -> Any:
        """A call of the engine that bears the trial's number: those that run are its slots, on its dashboard page."""
        return method.options(name=f"trial {self._number} {what}")

    def _answer(self, answer: Any) -> Any:
        try:
            given = ray.get(answer)
        except RayActorError as error:
            raise Fault(Reason.INFRASTRUCTURE, "its engine died") from error
        if isinstance(given, Failure):
            raise given.fault
        return given
