"""SIGINT, SIGTERM, SIGHUP and SIGQUIT as a request to stop.

The first signal asks: no new trials, running steps may still report, everything saved, the line that resumes printed,
exit code 128 + signal. The second one ends the wait for running steps as well; so do `GRACE_S`. What was reported is in
the ledger by then. Python answers a signal in its main thread alone, and only between two of its instructions, so a
thread of its own sees to it that the process ends within `ENDS_WITHIN_S` wherever the main thread stands.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tuner.streams import last_word

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GRACE_S = 3.0
"""For running steps to report after the first signal: batch systems kill 10 to 30 s after it."""
ENDS_WITHIN_S = 6.0
"""After which the thread carries out the end itself, where the main thread stands in a call that does not return."""


AGAIN_S = 1.0
"""Two signals within it are one: a finger that presses twice, a batch system that signals the process and its group."""
_END = b"\0"
"""No signal has this number."""


class StopRequested(KeyboardInterrupt):
    """Raised by a signal where nothing else would notice a flag. A KeyboardInterrupt, because that is what libraries
    let through: Ray's calls drop any other exception that a handler raises, and go on waiting. They raise a plain
    KeyboardInterrupt in its place, so that is what to catch."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number
        super().__init__(number)


def answered(number: int) -> bool:
    """Whether a signal is ours to answer: `nohup` starts a program with SIGHUP ignored, and means it. A shell without
    job control has its background jobs ignore SIGINT and SIGQUIT; who sends one of these to a search means it too."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


class StopSignals:
    """Listens while it is entered. `number` is the first signal that came, or None. `last`: called in a thread of its
    own, with that number, where the process has not ended `ENDS_WITHIN_S` later; it is to end it."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0
        self.last: Callable[[int], None] | None = None
        self._deferred = False
        self._muted = False
        self._whole = 0
        self._late = False
        self._before: dict[int, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self.listen()
            self._watch = _Watch(self)
        return self

    def listen(self) -> None:
        """Takes the signals over (again: a library may have taken them for itself)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if number in self._before or answered(number):
                before = signal.signal(number, self._on_signal)
                self._before.setdefault(number, before)

    def __exit__(self, *error: object) -> None:
        """Gives the signals back. Not to one that `ends` the process (`__main__`), after a stop: it is ending, and the
        line that resumes is still to be said. After a search that has ended by itself, that one has nothing to say."""
        if self._watch is not None:
            self._watch.close()
        for number, handler in self._before.items():
            ends = getattr(handler, "ends", False)
            if ends and self._muted:
                handler.text = b""
            signal.signal(number, signal.SIG_IGN if ends and self.number is not None else handler)

    def defer(self) -> None:
        """From here on the first signal only sets the flag; the loop looks at it."""
        self._deferred = True
        if self.number is not None:
            raise StopRequested(self.number)

    def mute(self) -> None:
        """From here on a signal interrupts nothing: the search is ending, and what it writes last must be whole. One
        that comes now is counted from all the same, because a disk may hang."""
        disarm()
        self._muted = True

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

    def comes(self, within: float = 0.5) -> bool:
        """Whether a stop is requested, or will be in a moment: of a signal to all processes of a job, one that the
        search depends on may hear before it, and die."""
        deadline = time.monotonic() + within
        while self.number is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.number is not None

    def press(self) -> None:
        """Another signal where the user has sent none: running steps had their time. It also makes up for one whose
        exception came to nothing, in a callback or a `__del__`, which print it and go on."""
        if not self._muted and self.number is not None:
            os.kill(os.getpid(), self.number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        disarm()
        if self._muted:
            return
        self.count += 1
        self.number = self.number or number
        if not self._deferred or self.count > 1:
            if self._whole:
                self._late = True
                return
            raise StopRequested(number)


class _Watch:
    """The thread that counts from the first signal. The system's own handler tells it through a pipe, which does not
    wait for the main thread."""

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self._hears, self._tells = os.pipe()
        os.set_blocking(self._tells, False)
        self._before = signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        self._leaving = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch. Does not return where it is ending the process."""
        self._leaving.acquire()
        signal.set_wakeup_fd(self._before)
        os.write(self._tells, _END)
        self._thread.join()
        os.close(self._tells)
        os.close(self._hears)

    def _run(self) -> None:
        number = self._first()
        if number is None or self._over(GRACE_S):
            return
        self._signals.press()
        if self._over(ENDS_WITHIN_S - GRACE_S) or not self._leaving.acquire(blocking=False):
            return
        if self._signals.last is not None:
            self._signals.last(number)
        self._leaving.release()

    def _first(self) -> int | None:
        """The first of our signals; None where the watch ends without one."""
        while True:
            (number,) = os.read(self._hears, 1)  # and no more: what follows is for `_over`
            if number in SIGNALS or number in _END:
                return number or None

    def _over(self, within: float) -> bool:
        """Waits; whether the watch has ended in that time."""
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._hears], [], [], left)[0] and _END in os.read(self._hears, 64):
                return True
        return False


@contextmanager
def raised() -> Iterator[None]:
    """Signals raise StopRequested in here: for a command that has something to clear away, or to say, and no search.
    One that comes `AGAIN_S` after another does not wait for that."""
    first = math.inf

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if now - first > AGAIN_S:
            leave(number)
        if first == math.inf:
            first = now
            raise StopRequested(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS if answered(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(number: int, text: str = "", *, code: int | None = None) -> None:
    """Ends the process at once, with a last word. What it has started and not ended, ends with it (`reaper.py`).

    code: the exit code, where it is not that of the signal `number`: a search may have been done before the signal.
    """
    last_word(text)
    os._exit(128 + number if code is None else code)


def disarm() -> None:
    """Takes back the alarm that Ray has set. A C++ handler of its own (absl's failure signal handler) sees a SIGTERM
    before anything in Python, and aborts the process 3 s later: too early for a search that is put away, and with -6
    for its end."""
    signal.alarm(0)


def reclaim() -> None:
    """Tells the system once more what Python knows of the signals: a library may have told it otherwise behind it."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)
