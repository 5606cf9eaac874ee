"""Starts the engines of a search, a GPU each, and the actors that train beside them; hands them the data; ends them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from tuner.contract import Preparation, Reason
from tuner.failures import Failure
from tuner.ray_cluster.resources import SLOT_CPUS, Allocation
from tuner.worker.config import EngineReady, EngineRequest, ProgramSource
from tuner.worker.engine_actor import EngineActor
from tuner.worker.solo_actor import SoloActor


@dataclass(frozen=True)
class EnginePool:
    """The actors that train packed trials, and those for unpacked trials beside them. It pickles, for the trials' own
    actors."""

    program: ProgramSource
    settings: Mapping[str, Any]
    packed: tuple[Any, ...]
    """Handles of the `EngineActor`s."""
    solos: tuple[Any, ...] = ()
    """Handles of the `SoloActor`s; () where every trial of the space can be packed."""
    preparation: Preparation | None = None
    """None until the data is prepared."""

    def close(self) -> None:
        """Ends their processes. A second call does nothing.

        Each may end by itself first: a call that it has just answered is red in Ray's dashboard where it is killed.
        """
        actors = (*self.packed, *self.solos)
        for engine in self.packed:
            engine.end.remote()
        ending = [actor.__ray_terminate__.remote() for actor in actors]
        ray.wait(ending, num_returns=len(ending), timeout=ENDS_WITHIN_S)
        for actor in actors:
            ray.kill(actor)

    def begin(
        self,
        preparation: Preparation,
        *,
        heaviest: Mapping[str, Any],
        measure: bool,
        points: Sequence[Mapping[str, Any]],
    ) -> list[EngineReady]:
        """Hands the prepared data to the engines; returns their answers when all have started. Raises Fault as soon as
        one cannot start.

        There is no time limit: a large base loads for half an hour, and nodes may have to be added first.
        """
        asked = EngineRequest(heaviest, measure, points)
        answers = waiting = [engine.begin.remote(preparation, asked) for engine in self.packed]
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=LOOK_S)
            for answer in ready:
                _begun(answer)
        return [_begun(answer) for answer in answers]

    def end(self, number: int) -> None:
        """Kills the process that trains trial `number`, which hangs. Ray starts it again, and its other trials go on
        there."""
        asked = {actor.trials.remote(): actor for actor in (*self.packed, *self.solos)}
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWERS_WITHIN_S)
        holds = [answer for answer in answered if number in _numbers(answer)]
        for answer in holds or silent:  # a call that never returns to Python blocks the answer too
            ray.kill(asked[answer], no_restart=False)


def _begun(answer: Any) -> EngineReady:
    """The answer of an engine that has started. Raises Fault, worded for the user, where it could not start."""
    try:
        begun: EngineReady | Failure = ray.get(answer)
    except RayError as error:  # its process died
        begun = Failure.of(error)
    if not isinstance(begun, Failure):
        return begun
    logging.getLogger(__name__).error("no engine stands: %s", begun.traceback)
    fault = begun.fault
    if fault.reason in (Reason.ERROR, Reason.INFRASTRUCTURE):
        fault.message = f"no engine for packed trials: {fault.message}"
        fault.remedy = fault.remedy or "its traceback is in logs/driver.log; --trials-per-gpu 1 does without engines"
    raise fault


def _numbers(answer: Any) -> set[int]:
    """The numbers of the trials in an actor's answer; none where it died."""
    try:
        return {number for number, _ in ray.get(answer)}
    except RayError:
        return set()


LOOK_S = 0.5
"""Seconds between two looks at which engines have started."""
ANSWERS_WITHIN_S = 5.0
"""Seconds for an engine to say which trials it has, which it can do while it trains."""
ENDS_WITHIN_S = 1.0
"""Seconds for the processes to end by themselves."""
SOLO_SHARE = 0.1
"""The share of an engine's GPU and CPUs that Ray counts for an unpacked trial beside it."""


@contextmanager
def engine_pool(
    allocation: Allocation,
    *,
    program: ProgramSource,
    settings: dict[str, Any],
    mixed: bool,
    accelerator_type: str | None = None,
) -> Iterator[EnginePool]:
    """Starts engines, which end with this context. mixed: starts an actor for unpacked trials beside each.

    They begin to import at once; `EnginePool.begin` makes them ready.
    """
    cpus = max(0.1, round(allocation.cpus - SLOT_CPUS * allocation.slots, 2))
    share = SOLO_SHARE if mixed else 0.0
    options = {
        "max_concurrency": 3 * allocation.slots + 4,  # each slot may wait while others start, confirm and stop
        "max_restarts": -1,  # its trials are tried again in the restarted one, as often as `retries` allows
        "accelerator_type": accelerator_type,
    }
    threads = None if "OMP_NUM_THREADS" in os.environ else max(1, int(allocation.cpus))
    engine, solo = ray.remote(EngineActor), ray.remote(SoloActor)
    made = tuple(
        engine.options(
            num_cpus=round(cpus * (1 - share), 3), num_gpus=round(allocation.gpus * (1 - share), 3), **options
        ).remote(program, settings, allocation.slots, threads, beside=mixed)
        for _ in range(allocation.workers)
    )
    beside = tuple(
        solo.options(
            num_cpus=round(cpus * share, 3),
            num_gpus=round(allocation.gpus * share, 3),
            max_concurrency=4,
            max_restarts=-1,
            accelerator_type=accelerator_type,
        ).remote(program, settings)
        for _ in range(allocation.workers if mixed else 0)
    )
    found = EnginePool(program, settings, made, beside)
    try:
        yield found
    finally:
        found.close()
