"""Shows how far something is: in one line of a terminal, drawn again; in a log in a few lines, ever farther apart."""

from __future__ import annotations

import os
import sys
import time
from typing import IO

from tuner.report.lines import crop, for_stream, line, plain, terminal_width

FIRST_S = 10.0
"""Seconds before a log gets its first line. The next ones come each time that the seconds have doubled: an hour has
nine."""
REDRAWN_S = 0.2


class Paced:
    """Says when a log's next line is due."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._due = FIRST_S

    def is_due(self, now: float) -> bool:
        """Whether a line is due at `now`, in seconds of a monotonic clock; the first call starts the clock."""
        if self._began is None:
            self._began = now
        if now - self._began < self._due:
            return False
        while now - self._began >= self._due:
            self._due *= 2
        return True


class Counter:
    """Shows what it is called with on a stream; a context manager that leaves nothing on a terminal."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        """stream: standard error by default."""
        self._stream = stream or sys.stderr
        self._redraws = self._stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        self._paced, self._drawn_at, self._is_drawn = Paced(), float("-inf"), False

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if not self._redraws:
            if self._paced.is_due(now):
                self._stream.write(plain([for_stream(line(text), self._stream)]))
                self._stream.flush()
        elif now - self._drawn_at >= REDRAWN_S:
            self._drawn_at, self._is_drawn = now, True
            width = terminal_width(self._stream)
            shown = "".join(span for span, _ in for_stream(crop(line(text), width - 1), self._stream))
            self._stream.write(f"\r{shown}\x1b[K")
            self._stream.flush()

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_drawn = False
