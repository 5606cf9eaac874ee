"""The program of a packed trial, which passes every call on to a slot of an engine (engine_actor.py)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError

from tuner.contract import Assignment, Evaluation, Fault, Reason, Setup
from tuner.failures import Failure
from tuner.worker.config import Refused
from tuner.worker.engine_pool import EnginePool

ANSWERS_WITHIN_S = 5.0
"""Seconds for engines to say how many slots they have free; one that is still starting does not answer."""
MADE_ANEW_S = 180.0
"""Seconds for engines that died to start again, on nodes that may have to be added first; imports alone take 20 s."""


class EngineClient:
    """Runs a trial in a slot of an engine: starts, steps and stops like any program."""

    def __init__(self, engines: EnginePool) -> None:
        self._all = engines
        self._engines: Sequence[Any] = ()
        self._engine: Any = None
        self._number = -1

    def start(self, assignment: Assignment) -> Setup:
        """Takes a slot of the engine with the most free ones, or of the next where another trial took the last.

        Ray runs no more trials at a time than there are slots, so one is found. A trial that cannot be packed waits
        until it can be trained beside an engine.
        """
        self._number = assignment.number
        packed = True
        if self._all.solos:  # only here: to load the program takes 0.2 s in each of many actors
            packed = self._all.program.load().packs(self._all.settings, assignment.params) is None
        self._engines = self._all.packed if packed else self._all.solos
        if assignment.attempt > 1:  # an earlier attempt whose actor died may still hold a slot of any engine
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
        """Has the trial trained unpacked beside an engine. Raises Fault for a search without such places: that trial
        ends."""
        if not self._all.solos or self._engines is self._all.solos:
            raise Fault(Reason.ERROR, refused.why, "set resources.trials_per_gpu to 1")
        self._engines = self._all.solos

    def step(self) -> Evaluation:
        return self._answer(self._call(self._engine.step, "in its slot").remote(self._number))

    def stop(self) -> None:
        try:
            self._answer(self._engine.stop.remote(self._number))
        except Fault as fault:
            if not isinstance(fault.__cause__, RayActorError):  # a dead engine has no trial to stop
                raise

    def _free(self, since: float) -> dict[int, int]:
        """The free slots of each engine that answers, by its index. One whose node is gone may never answer again.
        Where all have died Ray starts them again: raises Fault where that takes `MADE_ANEW_S` from `since` on."""
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
        """Names a call after the trial: the dashboard's page of an engine then shows which trials are in its slots."""
        return method.options(name=f"trial {self._number} {what}")

    def _answer(self, answer: Any) -> Any:
        try:
            given = ray.get(answer)
        except RayActorError as error:
            raise Fault(Reason.INFRASTRUCTURE, "its engine died") from error
        if isinstance(given, Failure):
            raise given.fault
        return given
