"""A row in the Ray dashboard for every running trial.

Ray asks an actor for its repr once, at its creation, and shows that for ever. Our workers outlive their trials, so a
worker's repr cannot name the trial it runs. Each trial that lives longer than a moment therefore gets a small actor
of its own, without resources, whose repr is the trial's title and which dies when the trial ends: the dashboard's
Actors page then lists the trials, running ones alive and ended ones dead. It costs about half a second of CPU beside
the trial, never in its way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray

APPEARS_AFTER_S = 2.0
"""A trial that ends sooner is not worth a process."""


class Trial:
    """The actor behind a row. Its class is what the dashboard calls it."""

    def __init__(self, title: str) -> None:
        self._title = title

    def __repr__(self) -> str:
        return self._title


@dataclass
class Plaques:
    """The rows of the trials that run now, by number. Used from the driver's loop alone."""

    _waiting: dict[int, tuple[float, str]] = field(default_factory=dict)
    _shown: dict[int, Any] = field(default_factory=dict)

    def begin(self, number: int, title: str) -> None:
        self._waiting[number] = (time.monotonic(), title)

    def end(self, number: int) -> None:
        self._waiting.pop(number, None)
        actor = self._shown.pop(number, None)
        if actor is not None:
            ray.kill(actor)

    def tick(self) -> None:
        """Puts up the rows that are due."""
        now = time.monotonic()
        for number, (since, title) in list(self._waiting.items()):
            if now - since >= APPEARS_AFTER_S:
                del self._waiting[number]
                self._shown[number] = ray.remote(Trial).options(num_cpus=0, max_restarts=0).remote(title)

    def clear(self) -> None:
        for number in [*self._waiting, *self._shown]:
            self.end(number)
