"""Nodes that are about to go: Ray was told to drain them, because a spot instance is taken back or a node is scaled in.

Ray puts nothing new on such a node, and leaves what runs there to its end. A trial there keeps a state with its next
evaluation and goes on elsewhere from it; where that evaluation does not come in time, from its last state. A trial on
an engine leaves with it, and so do its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tuner.driver.scheduler import TuneScheduler
from tuner.driver.trial_manager import TrialManager
from tuner.worker.engine_pool import EnginePool

EVERY_S = 1.0
"""Between two looks; asking Ray costs the driver a fifth of a millisecond."""
MARGIN_S = 5.0
"""Before its node goes a trial is moved as it is. A spot instance is taken 30 s (GCP, Azure) to 2 min (AWS) after the
word; starting a worker elsewhere takes longer than this, and nothing is gained by training on what gets lost."""


class Draining:
    """Has the trials leave in time; `turn` is called from the driver's loop, every `EVERY_S` seconds.

    nodes: those that are drained, with the time (s) that each has until, 0: no end is known.
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
        ends = self._nodes()
        if not ends:
            return
        for node in ends.keys() - self._told:
            self._told.add(node)
            self._note(f"node {node[:8]} is about to go: the trials on it go on elsewhere")
        for trial_id, actor in self._scheduler.actors().items():
            if (node := node_of(actor)) in ends:
                self._leave(trial_id, ends[node])
        for engine in self._engines:
            if (node := node_of(engine)) in ends:
                self._empty(engine, ends[node])

    def _leave(self, trial_id: str, end: float) -> None:
        """With the next report; at once where none will come in time, or in a pause, where it is the last one."""
        if (end and end - time.time() < MARGIN_S) or self._scheduler.is_held(trial_id):
            self._manager.leave_now(trial_id)
            self._scheduler.kill(trial_id)
        else:
            self._manager.leave(trial_id)

    def _empty(self, engine: Any, end: float) -> None:
        """Takes an engine out of use, and has Ray make it anew elsewhere when its trials have left."""
        import ray

        try:
            there = ray.get(engine.close.remote(), timeout=EVERY_S)
        except ray.exceptions.RayError:
            return  # it is being made, or is gone already
        left = [trial_id for attempt in there if (trial_id := self._manager.running_as(*attempt))]
        for trial_id in left:
            self._leave(trial_id, end)
        if not left or (end and end - time.time() < MARGIN_S):
            ray.kill(engine, no_restart=False)


def draining() -> Mapping[str, float]:
    """The nodes that Ray was told to drain, by id."""
    from ray._private.state import state

    return {node: deadline / 1000 for node, deadline in state.get_draining_nodes().items()}


def node_of(actor: Any) -> str:
    """Where an actor lives; "" while it is being made."""
    from ray._private.state import actors

    found = actors(actor._actor_id.hex())
    return str(found["Address"]["NodeID"]) if found.get("State") == "ALIVE" else ""
