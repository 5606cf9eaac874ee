"""Makes calls that are due every few seconds from the driver's loop, which turns several times a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Periodic:
    """Calls `call` at most once in `every_s` seconds, however often it is called itself; the first time at once."""

    def __init__(self, every_s: float, call: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._call, self._clock = every_s, call, clock
        self._called = -math.inf

    def __call__(self) -> None:
        now = self._clock()
        if now - self._called >= self._every_s:
            self._called = now
            self._call()
