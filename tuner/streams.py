"""The process's standard streams, also where they cannot be written to.

A stream may be closed (`>&-`), lead to a reader that has gone (`| head`) or does not read, to a full disk or a terminal
that is closed or stopped (Ctrl-S), or take ASCII alone. A command whose purpose is to print has then failed: its output
is `Printed`, which raises OutputError. Every other command goes on: its output is `Shown`, which never raises and never
makes the caller wait. Standard error is `Shown` for all commands.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

MOST_BYTES = 16 * 2**20
"""The most bytes that wait for a reader: 50,000 events of a search, or an hour of the live view."""
STILL_S = 2.0
"""Seconds in which a reader takes no byte, after which the end of a command no longer waits for it."""
STILL_AGAIN_S = 0.1
"""The same for a reader that was given up once before."""
_PIECE = 4096
"""Bytes of one write. A pipe takes that many in one piece, and each piece that it takes shows that the reader is
alive."""


class OutputError(Exception):
    """A command's output could not be written. Not an OSError, because click handles EPIPE itself, with exit code 1."""

    def __init__(self, name: str, error: OSError) -> None:
        self.reader_gone = error.errno == errno.EPIPE
        super().__init__(f"{name} cannot be written ({error.strerror or error})")


def open_closed() -> None:
    """Opens /dev/null for each standard stream that is closed, for this process and those it starts.

    Otherwise the next file that is opened gets the stream's descriptor, and what a library prints goes into that file.
    To be called before any file is opened.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opened as `number`, the lowest that is free
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside this block standard output is `Printed` and standard error `Shown`. At its end `settle` is called."""
    before, outer = (sys.stdout, sys.stderr), list(_SHOWN)
    _SHOWN[:] = [Shown(before[1], "standard error")]
    sys.stdout, sys.stderr = Printed(before[0], "standard output"), _SHOWN[0]
    try:
        yield
    finally:
        settle()
        sys.stdout, sys.stderr = before
        _SHOWN[:] = outer


def show_output() -> None:
    """Makes standard output `Shown` as well from here on, for a command that does more than print."""
    if isinstance(sys.stdout, Printed):
        sys.stdout = Shown(sys.stdout.beneath, "standard output", no_gaps=True)
        _SHOWN.append(sys.stdout)


def settle() -> None:
    """Waits until what was shown is written, as long as its reader takes some of it, so that what is written next on
    the other stream comes after it."""
    for stream in _SHOWN:
        stream.drain()


def restore_streams() -> None:
    """Makes sys.stdout and sys.stderr the process's own streams again, where the live view or a log replaced them."""
    shown = {stream.beneath: stream for stream in _SHOWN}
    for name in ("stdout", "stderr"):
        first = getattr(sys, f"__{name}__") or getattr(sys, name)
        setattr(sys, name, shown.get(first, first))


def last_word(text: str) -> None:
    """Writes to the process's own standard error just before its end, also where the live view replaced it, and waits
    as `settle` does. May be called in any thread."""
    if _SHOWN:
        _SHOWN[0].write(text)
        settle()
    else:
        with suppress(OSError):
            os.write(2, text.encode())


def takes_utf8(stream: IO[str]) -> bool:
    """Whether a stream's encoding is UTF-8, or not known."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


class _Stream(io.TextIOBase):
    """Writes text to the descriptor of another stream, and not to its buffer, whose error would come again at exit.
    Characters that the encoding lacks are escaped. A stream without a descriptor (a test's) is written to directly."""

    def __init__(self, beneath: IO[str], name: str) -> None:
        self.beneath, self._name = beneath, name
        try:
            beneath.flush()
            self._descriptor: int | None = beneath.fileno()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None
        self._terminal = self._descriptor is not None and os.isatty(self._descriptor)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.beneath, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._terminal  # as at the start: a terminal that is closed would not be one any more

    def fileno(self) -> int:
        return self.beneath.fileno()

    def _encoded(self, text: str) -> bytes:
        return text.encode(self.encoding, self.errors)


class Printed(_Stream):
    """A stream that raises OutputError where a text cannot be written."""

    def write(self, text: str) -> int:
        try:
            if self._descriptor is None:
                return self.beneath.write(text)
            for start in range(0, len(data := self._encoded(text)), _PIECE):
                _write(self._descriptor, data[start : start + _PIECE])
        except OSError as error:
            raise OutputError(self._name, error) from error
        return len(text)


class Shown(_Stream):
    """A stream that never raises and never makes the caller wait: a thread writes.

    After the first error everything else is dropped, with one note in the run's log. no_gaps: whether the same holds
    where more than MOST_BYTES wait for the reader, because a program must not miss an event without notice. Otherwise
    only the text that is too much is dropped: the reader is a person, who may read on.
    """

    def __init__(self, beneath: IO[str], name: str, *, no_gaps: bool = False) -> None:
        super().__init__(beneath, name)
        self._no_gaps, self._failed, self._noted, self._overfull, self._gave_up = no_gaps, False, False, False, False
        self._changed = threading.Condition()
        self._texts: deque[bytes] = deque()
        self._waiting = self._taken = 0
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        if self._failed:
            return len(text)
        if self._descriptor is None:
            try:
                return self.beneath.write(text)
            except (OSError, ValueError) as error:
                self._fail(error)
                return len(text)
        data = self._encoded(text)
        with self._changed:
            if self._waiting + len(data) > MOST_BYTES:
                self._drop_text()
                return len(text)
            self._texts.append(data)
            self._waiting += len(data)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = self._start_thread()
        if self._thread is None:
            self._take()
        return len(text)

    def _start_thread(self) -> threading.Thread | None:
        """Starts the thread; None where the system allows no more threads. The caller then writes, and may have to
        wait."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        return thread

    def drain(self) -> None:
        """Waits until all is written, at most STILL_S seconds from one piece that is taken to the next."""
        with self._changed:
            moved = True
            while moved and self._texts and not self._failed:
                taken = self._taken
                within = STILL_AGAIN_S if self._gave_up else STILL_S
                moved = self._changed.wait_for(lambda taken=taken: self._taken > taken or self._failed, within)  # type: ignore[misc]
                self._gave_up = not moved

    def _run(self) -> None:
        while not self._failed:
            self._take()

    def _take(self) -> None:
        """Writes the text that has waited longest; waits for one where there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._texts)
            data = self._texts[0]
        try:
            for start in range(0, len(data), _PIECE):
                _write(self._descriptor or 0, data[start : start + _PIECE])
                with self._changed:
                    self._taken += 1
                    self._changed.notify_all()
        except OSError as error:
            self._fail(error)
            return
        with self._changed:
            if self._texts:
                self._waiting -= len(self._texts.popleft())
            self._taken += 1
            self._changed.notify_all()

    def _drop_text(self) -> None:
        """Handles a text for which there is no room."""
        if self._no_gaps:
            self._fail(OSError(errno.EAGAIN, f"its reader has left {MOST_BYTES:,} bytes waiting"))
        elif not self._overfull:
            self._overfull = True
            note(f"the reader of {self._name} has left {MOST_BYTES:,} bytes waiting: a part is left out")

    def _fail(self, error: OSError | ValueError) -> None:
        """Drops everything from now on, and notes why the first time."""
        with self._changed:
            first, self._noted = not self._noted, True
        if first:
            why = getattr(error, "strerror", None) or str(error)
            note(f"{self._name} cannot be written any more ({why}): nothing more is shown there")
        with self._changed:
            self._failed = True
            self._texts.clear()
            self._changed.notify_all()


def _write(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, also to a terminal that another program has set to non-blocking."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


_SHOWN: list[Shown] = []
"""Standard error, and standard output where it is `Shown`."""
_UNTOLD: list[str] = []
"""Notes that wait for the run's log to be opened."""


def note(text: str) -> None:
    """Writes a sentence into the run's log, as soon as there is one."""
    import logging

    _UNTOLD.append(text)
    if logging.getLogger().handlers:
        tell_log()


def tell_log() -> None:
    """Writes into the log what was noted before there was one."""
    import logging

    while _UNTOLD:
        logging.getLogger(__name__).warning(_UNTOLD.pop(0))
