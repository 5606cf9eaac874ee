"""SIGINT, SIGTERM, SIGHUP and SIGQUIT as a request to stop.

After the first signal no trial starts, running steps may still report, everything is saved, the command that resumes is
printed, and the exit code is 128 + signal. A second signal, or `GRACE_S` seconds, ends the wait for running steps. What
was reported is in the ledger by then. Python runs a signal handler in the main thread only, and only between two of its
instructions, so another thread makes sure that the process ends within `ENDS_WITHIN_S` seconds whatever the main thread
does.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tuner.streams import last_word

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GRACE_S = 3.0
"""Seconds for running steps to report after the first signal: batch systems kill 10 to 30 s after it."""
ENDS_WITHIN_S = 6.0
"""Seconds after the first signal at which the thread ends the process, if the main thread is in a call that does not
return."""
AGAIN_S = 1.0
"""Signals within so many seconds count as one: Ctrl-C pressed twice, a batch system that signals process and group."""
_DROPPED_S = 0.05
"""Seconds after which a signal is sent again where Python has dropped its exception: the `__del__` is over by then."""
_END = b"\0"
"""The byte that ends the thread; no signal has this number."""


class StopRequested(KeyboardInterrupt):
    """Raised by a signal where no loop looks at a flag. It is a KeyboardInterrupt because Ray's calls drop any other
    exception that a handler raises, and go on waiting. They raise a plain KeyboardInterrupt in its place, so that is
    what to catch. number: the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.number = number
        super().__init__(number)


def answered(number: int) -> bool:
    """Whether a search handles a signal. Not SIGHUP where it is ignored, as by `nohup`. SIGINT and SIGQUIT always,
    though a shell without job control starts background jobs with them ignored: whoever sends one wants the search to
    stop."""
    return number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


class StopSignals:
    """Handles the signals while it is entered."""

    def __init__(self) -> None:
        self.first: int | None = None
        """The number of the first signal that came; None before that."""
        self.count = 0
        """How many signals came."""
        self.end_process: Callable[[int], None] | None = None
        """Called in another thread with that number where the process still runs `ENDS_WITHIN_S` seconds later. It is
        to end the process."""
        self._deferred = False
        self._muted = False
        self._uninterrupted = 0
        """How many blocks of `uninterrupted` are entered."""
        self._late = False
        """Whether a signal came in such a block and is still to be raised."""
        self._before: dict[int, Any] = {}
        """The handlers that were set before, by number of the signal."""
        self._watcher: _Watcher | None = None
        self._dropped = _sent_again(self.repeat)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self.listen()
            self._watcher = _Watcher(self)
            self._dropped.__enter__()
        return self

    def listen(self) -> None:
        """Sets the handlers. To be called again after a library may have set its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if number in self._before or answered(number):
                before = signal.signal(number, self._on_signal)
                self._before.setdefault(number, before)

    def __exit__(self, *error: object) -> None:
        """Restores the handlers. In place of one that `ends` the process (`__main__`) signals are ignored after a stop,
        because the command that resumes is still to be printed; where the search ended by itself, that handler prints
        nothing."""
        if self._watcher is not None:
            self._watcher.close()
            self._dropped.__exit__(None, None, None)
        for number, handler in self._before.items():
            ends = getattr(handler, "ends", False)
            if ends and self._muted:
                handler.text = b""
            signal.signal(number, signal.SIG_IGN if ends and self.first is not None else handler)
        self._muted = True  # no signal is sent again to whom it would now end

    def defer(self) -> None:
        """From here on the first signal only sets `first`, which the driver's loop looks at. Raises StopRequested where
        one has come already."""
        self._deferred = True
        if self.first is not None:
            raise StopRequested(self.first)

    def mute(self) -> None:
        """From here on a signal interrupts nothing: the search is ending, and what it writes last must be complete. The
        time limit of a signal that comes now still holds, because a disk may hang."""
        disarm()
        self._muted = True

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """A block that no signal interrupts: StopRequested is raised at its end. For an import, in the middle of which
        Python may print the exception and drop it, and between a line of the ledger and what follows from it."""
        self._uninterrupted += 1
        try:
            yield
        finally:
            self._uninterrupted -= 1
        if self._late and not self._uninterrupted:
            self._late = False
            raise StopRequested(self.first or signal.SIGINT)

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.first is not None

    def comes(self, within: float = 0.5) -> bool:
        """Whether a signal has come, or comes within `within` seconds: where all processes of a job are signalled, one
        that the search depends on may die of it before this process gets it."""
        deadline = time.monotonic() + within
        while self.first is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.first is not None

    def repeat(self) -> None:
        """Sends this process the first signal again: the time for running steps is over, or Python has dropped the
        exception."""
        if not self._muted and self.first is not None:
            os.kill(os.getpid(), self.first)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        disarm()
        if self._muted:
            return
        self.count += 1
        self.first = self.first or number
        if not self._deferred or self.count > 1:
            if self._uninterrupted:
                self._late = True
                return
            raise StopRequested(number)


class _Watcher:
    """The thread that keeps the time limits from the first signal on. Python's C-level handler writes each signal into
    a pipe (`signal.set_wakeup_fd`), which does not depend on the main thread."""

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread. Does not return where the thread is ending the process."""
        self._ending.acquire()
        signal.set_wakeup_fd(self._before)
        os.write(self._writing, _END)
        self._thread.join()
        os.close(self._writing)
        os.close(self._reading)

    def _run(self) -> None:
        number = self._first()
        if number is None or self._over(GRACE_S):
            return
        self._signals.repeat()
        if self._over(ENDS_WITHIN_S - GRACE_S) or not self._ending.acquire(blocking=False):
            return
        if self._signals.end_process is not None:
            self._signals.end_process(number)
        self._ending.release()

    def _first(self) -> int | None:
        """Waits for the first of `SIGNALS`, and returns it; None where the thread is to end before one comes."""
        while True:
            (number,) = os.read(self._reading, 1)  # one byte only: the next ones are for `_over`
            if number in SIGNALS or number in _END:
                return number or None

    def _over(self, within: float) -> bool:
        """Waits `within` seconds; returns whether the thread is to end."""
        deadline = time.monotonic() + within
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._reading], [], [], left)[0] and _END in os.read(self._reading, 64):
                return True
        return False


@contextmanager
def signals_raised() -> Iterator[None]:
    """Inside this block the first signal raises StopRequested: for a command without a search that has something to
    clean up or to print. A signal more than `AGAIN_S` seconds later ends the process at once."""
    first, came, over = math.inf, 0, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first, came
        now = time.monotonic()
        if now - first > AGAIN_S:
            exit_now(number)
        if first == math.inf:
            first, came = now, number
            raise StopRequested(number)

    def repeat() -> None:
        nonlocal first
        if not over:
            first = math.inf
            os.kill(os.getpid(), came)

    before = {number: signal.signal(number, stop) for number in SIGNALS if answered(number)}
    try:
        with _sent_again(repeat):
            yield
    finally:
        over = True
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _sent_again(repeat: Callable[[], None]) -> Iterator[None]:
    """Inside this block a signal is not lost whose exception Python drops, as one raised in a `__del__` or a callback:
    the exception is not printed, and `repeat` is called, which is to send the signal again. Ray's actor handles have a
    `__del__`."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, StopRequested):
            before(dropped)
            return
        again = threading.Timer(_DROPPED_S, repeat)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def exit_now(number: int, text: str = "", *, code: int | None = None) -> None:
    """Ends the process at once, after writing `text` to standard error. What it has started ends with it (`reaper.py`).

    code: the exit code; None for 128 + `number`, the signal's. Another one where the search was done before the signal.
    """
    last_word(text)
    os._exit(128 + number if code is None else code)


def disarm() -> None:
    """Cancels the alarm that Ray sets. Its C++ handler (absl's failure signal handler) runs at a SIGTERM before
    anything in Python, and aborts the process 3 s later, with exit code -6: too early for a search that is being
    saved."""
    signal.alarm(0)


def reclaim() -> None:
    """Sets Python's signal handlers again: a library's C code may have replaced them without Python's knowledge."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)
