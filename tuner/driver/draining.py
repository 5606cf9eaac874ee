"""Moves trials away from nodes that Ray was told to drain, because a spot instance is taken back or a node scaled in.

Ray places nothing new on such a node, and does not stop what runs there. A trial there saves a state with its next
evaluation and goes on from that on another node; where that evaluation does not come in time, from its last state. The
packed trials of an engine are moved together, and so is the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tuner.driver.scheduler import TuneScheduler
from tuner.driver.trial_manager import TrialManager
from tuner.worker.engine_pool import EnginePool

EVERY_S = 1.0
"""Seconds between two looks; asking Ray takes the driver 0.2 ms."""
MARGIN_S = 5.0
"""Seconds before the end of its node at which a trial is moved without waiting for its evaluation. A spot instance is
taken 30 s (GCP, Azure) to 2 min (AWS) after the notice. Starting a worker elsewhere takes longer than this, and further
training on the node would be lost."""


class Draining:
    """Moves the trials in time; the driver's loop calls `turn` every `EVERY_S` seconds.

    nodes: tells which nodes are drained, each with its end in seconds since the epoch; 0 where no end is known.
    """

    def __init__(
        self,
        manager: TrialManager,
        scheduler: TuneScheduler,
        note: Callable[[str], None],
        engines: EnginePool | None = None,
        nodes: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self._manager, self._scheduler, self._note = manager, scheduler, note
        self._engines = (*engines.packed, *engines.solos) if engines else ()
        self._nodes = nodes or draining
        self._told: set[str] = set()

    def turn(self) -> None:
        """Looks for nodes that are drained, and has the trials on them moved."""
        ends = self._nodes()
        if not ends:
            return
        for node in ends.keys() - self._told:
            self._told.add(node)
            self._note(f"node {node[:8]} is about to go: the trials on it go on elsewhere")
        for trial_id, actor in self._scheduler.actors().items():
            if (node := node_of(actor)) in ends:
                self._drain(trial_id, ends[node])
        for engine in self._engines:
            if (node := node_of(engine)) in ends:
                self._drain_engine(engine, ends[node])

    def _drain(self, trial_id: str, end: float) -> None:
        """Moves a trial at its next report; at once where none will come in time, or where the search is paused and the
        trial has reported. end: of its node, as in `nodes`."""
        if (end and end - time.time() < MARGIN_S) or self._scheduler.is_held(trial_id):
            self._manager.drain_now(trial_id)
            self._scheduler.kill(trial_id)
        else:
            self._manager.drain(trial_id)

    def _drain_engine(self, engine: Any, end: float) -> None:
        """Has an engine take no more trials and its trials moved; Ray then starts it again on another node."""
        import ray

        try:
            there = ray.get(engine.close.remote(), timeout=EVERY_S)
        except ray.exceptions.RayError:
            return  # it is starting, or has died already
        running = [trial_id for attempt in there if (trial_id := self._manager.running_as(*attempt))]
        for trial_id in running:
            self._drain(trial_id, end)
        if not running or (end and end - time.time() < MARGIN_S):
            ray.kill(engine, no_restart=False)


def draining() -> Mapping[str, float]:
    """The nodes that Ray was told to drain, by id, each with its end in seconds since the epoch; 0 where none is
    known."""
    from ray._private.state import state

    return {node: deadline / 1000 for node, deadline in state.get_draining_nodes().items()}


def node_of(actor: Any) -> str:
    """The id of the node that an actor runs on; "" while it is starting."""
    from ray._private.state import actors

    found = actors(actor._actor_id.hex())
    return str(found["Address"]["NodeID"]) if found.get("State") == "ALIVE" else ""
