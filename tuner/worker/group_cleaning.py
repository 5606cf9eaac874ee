"""Has a group's GPUs freed when its worker is killed, also where the group is still starting.

Ray keeps a placement group of an actor that died until the job ends; Ray Train has a detached actor that removes it. It
tells that actor of the placement group once all processes of the group have started: a worker that is killed before
(called hung, or lost) would hold the GPUs for the rest of the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback


class EarlyCleaner(PlacementGroupCleanerCallback):  # type: ignore[misc]
    """Ray Train's own, which learns of a placement group as soon as it is asked for. It is used in the process that
    starts a group's processes."""

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Waits until the detached actor answers, and tells it of the placement group that is made inside."""
        from ray.train.v2._internal.execution.worker_group import worker_group

        if self._cleaner is None:  # it could not be started, which Ray Train has logged
            yield
            return
        ray.get(self._cleaner.__ray_ready__.remote())
        make = worker_group.placement_group

        def told(*arguments: Any, **more: Any) -> Any:
            made = make(*arguments, **more)
            self._cleaner.register_placement_group.remote(made)
            return made

        worker_group.placement_group = told
        try:
            yield
        finally:
            worker_group.placement_group = make


def use() -> None:
    """Has Ray Train use it for the groups of this process."""
    from ray.train.v2.api import data_parallel_trainer

    data_parallel_trainer.PlacementGroupCleanerCallback = EarlyCleaner
