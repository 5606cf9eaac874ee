"""Ctrl-C and SIGTERM as a request to stop.

The first signal asks: no new trials, everything saved, the line that resumes printed, exit 130 or 143. The second
one ends the wait for running steps as well; what was reported is in the ledger by then.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequested(BaseException):
    """Raised by a signal outside the search loop (start-up, say), where nothing else would notice a flag."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number
        super().__init__(number)


class StopSignals:
    """Listens for SIGINT and SIGTERM while it is entered. `number` is the first that came, or None."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0
        self._deferred = False
        self._whole = 0
        self._late = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self.listen()
        return self

    def listen(self) -> None:
        """Takes the signals over (again: Ray installs a SIGTERM handler of its own when it starts)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, self._on_signal)
            self._before.setdefault(number, before)

    def __exit__(self, *error: object) -> None:
        """Gives the signals back. Not to one that `ends` the process (`__main__`), after a stop: it is ending, and the
        line that resumes is still to be said."""
        for number, handler in self._before.items():
            ends = self.number is not None and getattr(handler, "ends", False)
            signal.signal(number, signal.SIG_IGN if ends else handler)

    def defer(self) -> None:
        """From here on the first signal only sets the flag; the loop looks at it."""
        self._deferred = True
        if self.number is not None:
            raise StopRequested(self.number)

    def mute(self) -> None:
        """From here on signals are ignored: the search is ending, and what it writes last must be whole."""
        disarm()  # Ray's handler in Python may have answered instead of ours
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is done in here is done to its end: a signal that would raise waits until then. An import, say: in the
        middle of one, Python may print the exception and go on without it. And between a line of the ledger and what
        follows from it, nothing comes."""
        self._whole += 1
        try:
            yield
        finally:
            self._whole -= 1
        if self._late and not self._whole:
            self._late = False
            raise StopRequested(self.number or signal.SIGINT)

    def requested(self) -> bool:
        return self.number is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        disarm()
        self.count += 1
        self.number = self.number or number
        if not self._deferred or self.count > 1:
            if self._whole:
                self._late = True
                return
            raise StopRequested(number)


def disarm() -> None:
    """Takes back the alarm that Ray has set. A C++ handler of its own (absl's failure signal handler) sees a SIGTERM
    before anything in Python, and aborts the process 3 s later: too early for a search that is put away, and with -6
    for its end."""
    signal.alarm(0)


def reclaim() -> None:
    """Tells the system once more what Python knows of the signals: a library may have told it otherwise behind it."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)
