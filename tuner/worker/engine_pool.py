"""The engines of a search, a GPU each, and what trains beside them: made, handed the rows, ended."""

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
from tuner.worker.config import EngineReady, EngineRequest
from tuner.worker.engine_actor import EngineActor
from tuner.worker.solo_actor import SoloActor


@dataclass(frozen=True)
class EnginePool:
    """Where trials run packed, and, where some cannot, unpacked beside. For actors: it pickles."""

    program: str
    settings: Mapping[str, Any]
    packed: tuple[Any, ...]
    solos: tuple[Any, ...] = ()
    preparation: Preparation | None = None

    def close(self) -> None:
        """Ends their processes. A second call does nothing."""
        for actor in (*self.packed, *self.solos):
            ray.kill(actor)

    def begin(
        self,
        preparation: Preparation,
        *,
        heaviest: Mapping[str, Any],
        measure: bool,
        points: Sequence[Mapping[str, Any]],
    ) -> list[EngineReady]:
        """Hands the rows to the engines; returns when they stand. Raises Fault as soon as one cannot.

        It waits as long as it takes: a large base loads for half an hour, and nodes may have to come first.
        """
        asked = EngineRequest(heaviest, measure, points)
        answers = waiting = [engine.begin.remote(preparation, asked) for engine in self.packed]
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=LOOK_S)
            for answer in ready:
                _begun(answer)
        return [_begun(answer) for answer in answers]

    def end(self, number: int) -> None:
        """Ends the process that trains a trial which hangs; Ray makes it anew, and its neighbours go on in that."""
        asked = {actor.trials.remote(): actor for actor in (*self.packed, *self.solos)}
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWERS_WITHIN_S)
        holds = [answer for answer in answered if number in _numbers(answer)]
        for answer in holds or silent:  # a call that never returns to Python holds up the answer as well
            ray.kill(asked[answer], no_restart=False)


def _begun(answer: Any) -> EngineReady:
    """What an engine settled on. Raises Fault, with words for the user, where it does not stand."""
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
    try:
        return {number for number, _ in ray.get(answer)}
    except RayError:
        return set()


LOOK_S = 0.5
"""Between two looks at which engines stand."""
ANSWERS_WITHIN_S = 5.0
"""For an engine to say which trials it has, which it can while it trains."""
SOLO_SHARE = 0.1
"""Of an engine's GPU and CPUs, what an unpacked trial beside it holds in Ray's books."""


@contextmanager
def engine_pool(
    allocation: Allocation,
    *,
    program: str,
    settings: dict[str, Any],
    mixed: bool,
    accelerator_type: str | None = None,
) -> Iterator[EnginePool]:
    """Engines for as long as they are needed, and with `mixed` a place beside each for a trial that cannot be packed.

    They begin to import at once; `EnginePool.begin` makes them ready.
    """
    cpus = max(0.1, round(allocation.cpus - SLOT_CPUS * allocation.slots, 2))
    share = SOLO_SHARE if mixed else 0.0
    options = {
        "max_concurrency": 3 * allocation.slots + 4,  # each slot may wait while others start, confirm and stop
        "max_restarts": -1,  # its trials are tried again on what takes its place, as often as `retries` has it
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
