"""The ledger: `trials.jsonl`, one JSON object a line, appended and flushed to disk, never changed.

Every line has the same leading fields (`EVENT_FIELDS`, null where an event has no such thing) and may carry more in
`details`. Numbers that JSON cannot write (NaN and the infinities) stand as the strings "NaN", "Infinity" and
"-Infinity", so that any strict JSON reader can read a ledger and nothing that was measured is lost. `sum`, the last
member of a line, is the CRC-32 of the line without it.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from tuner.contract import Reason, Status
from tuner.disks import is_full
from tuner.redaction import redacted
from tuner.results import earlier_keys
from tuner.results import untrusted_json as strict


class Kind(StrEnum):
    """What an event says. `search` opens a session of a search, `finished` closes it; the rest is about one trial,
    except `prepared` (data and base), `note` (a sentence for the user), and what somebody asked of the running search:
    `paused`, `resumed`, `stopped`, and `added`, a point that becomes a trial when a worker is free. `retry` ends an
    attempt at a trial that is tried again, and says why. `parked` ends one at a trial that waits, with its state and
    without an ending, until the scheduler has it go on (`started` again) or ends it."""

    SEARCH = "search"
    PREPARED = "prepared"
    NOTE = "note"
    STARTED = "started"
    SETUP = "setup"
    EVALUATION = "evaluation"
    ENDED = "ended"
    RETRY = "retry"
    INTERRUPTED = "interrupted"
    PARKED = "parked"
    PAUSED = "paused"
    RESUMED = "resumed"
    ADDED = "added"
    STOPPED = "stopped"
    FINISHED = "finished"


@dataclass(frozen=True)
class Event:
    """One line of the ledger. `trial` is Ray's id of this attempt, `number` the search's own, counted from 0."""

    event: Kind
    time: float = 0.0
    trial: str | None = None
    number: int | None = None
    attempt: int | None = None
    params: Mapping[str, Any] | None = None
    step: int | None = None
    tokens: int | None = None
    metrics: Mapping[str, float | None] | None = None
    """What an evaluation measured, by name."""
    best: Mapping[str, float | None] | None = None
    """The best value so far of the search's first objective, by its name."""
    status: str | None = None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of strict JSON, its checksum last."""
        values = {name: getattr(self, name) for name in EVENT_FIELDS}
        values = {name: _encode(value) for name, value in {**values, **self.earlier_keys}.items()}
        return strict.signed(json.dumps(values, allow_nan=False, separators=(",", ":")))

    @property
    def earlier_keys(self) -> Mapping[str, float | None]:
        """What version 0.1 had instead of `metrics` and `best`."""
        return earlier_keys.last_and_best(self.metrics, self.best)

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Reads one line. Unknown fields are ignored, so that a newer ledger can be read. Raises ValueError."""
        if strict.deep(line):
            raise ValueError(f"nested more than {strict.MAX_DEPTH} levels deep")
        values = json.loads(line)
        if not isinstance(values, dict) or not isinstance(values.get("event"), str):
            raise ValueError("not an object with `event`")
        known = strict.checked({name: values[name] for name in values if name in strict.FIELDS}, strict.FIELDS)
        known["event"] = kind = Kind(values["event"])
        known["details"] = strict.checked(known.get("details", {}), strict.DETAILS.get(kind, {}), "details.")
        if "status" in known:
            known["status"] = str(Status(known["status"]))
        if kind is Kind.ENDED and "reason" in known:
            known["reason"] = str(Reason(known["reason"]))
        return cls(**earlier_keys.read(known))


EVENT_FIELDS = tuple(f.name for f in fields(Event))


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(k): _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return value


def steady_clock() -> Callable[[], float]:
    """The time of day as the clock has it now, and from here on as it passes: a clock that is set meanwhile, be it by a
    month, changes no duration. Time in which the machine sleeps counts."""
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time() - time.clock_gettime(kind)
    return lambda: offset + time.clock_gettime(kind)


SYNC_EVERY_S = 1.0
"""Events of a running trial are forced to the disk at most this often."""

_BRIEF = frozenset({Kind.STARTED, Kind.SETUP, Kind.EVALUATION})


class Ledger:
    """Appends events to a file and tells listeners.

    A line is in the file before `append` returns and before any listener hears of it, so a driver that dies, however it
    dies, has lost nothing that a person has seen. Against a machine that dies the line is also forced to the disk
    (fsync): every ending at once, and what a running trial reports if the last time was a second ago. What such a crash
    can take is thus a second of reports of trials that it cut off, and a resume runs those again; a search of short
    trials would spend more time on waiting for the disk than on anything else.
    One writer: the run folder's lock sees to that.

    Secrets in its texts are redacted before anybody gets to see an event.

    full: called with the error where the disk has no room for a line; when it returns, the line is tried again. A line
    that did not get onto the disk as a whole is taken back, so that nothing before it suffers.
    """

    def __init__(
        self,
        path: Path,
        listeners: Iterable[Callable[[Event], None]] = (),
        full: Callable[[OSError], None] | None = None,
    ) -> None:
        self._listeners = list(listeners)
        self._full = full
        self.torn = _cut_torn_line(path)
        """Bytes of a last line that a crash had torn, and that were cut off."""
        self._file = path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._synced = -math.inf
        self._now = steady_clock()
        self._torn = False
        self._turn = threading.RLock()

    def seize(self, within: float) -> bool:
        """Keeps every other thread from appending, for good; whether that was had within so many seconds. Of two
        threads that write the end of a search, the second one stands still until the process ends."""
        return self._turn.acquire(timeout=within)

    def append(self, kind: Kind, **values: Any) -> Event:
        with self._turn:
            return self._append(kind, values)

    def _append(self, kind: Kind, values: Mapping[str, Any]) -> Event:
        event = Event(event=kind, time=self._now(), **redacted(values))
        line = event.to_json().encode() + b"\n"
        while True:
            try:
                self._write(line, brief=kind in _BRIEF)
                break
            except OSError as error:
                if self._full is None or not is_full(error):
                    raise
                self._full(error)
        for listener in self._listeners:
            listener(event)
        return event

    def close(self) -> None:
        self._file.close()

    def _write(self, line: bytes, *, brief: bool) -> None:
        try:
            if self._torn:
                self._take_back()
            written = 0
            while written < len(line):  # a disk that fills up takes a part of a line without complaint
                written += self._file.write(line[written:]) or 0
            now = time.monotonic()
            if not brief or now - self._synced >= SYNC_EVERY_S:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError:
            self._torn = True
            with suppress(OSError):  # else before the next line: a disk that comes back must not find two in one
                self._take_back()
            raise
        self._size += len(line)

    def _take_back(self) -> None:
        self._file.truncate(self._size)
        self._torn = False


class UnreadableLine(ValueError):
    """A line of a ledger that cannot be used. number: its own, from 1. foreign: it is as it was written, and this
    version does not know what it says: a newer one does."""

    def __init__(self, path: Path, number: int, why: object, foreign: bool = False) -> None:
        self.path, self.number, self.foreign = path, number, foreign
        super().__init__(f"{path}, line {number}: not a ledger event ({why})")


def read_ledger(path: Path) -> Iterator[Event]:
    """Yields the events of a ledger, oldest first.

    A last line without its newline was torn by a crash in the middle of a write: it was never told to anyone and is
    left out. Any other line that cannot be read, or whose checksum does not fit, raises UnreadableLine.
    Lines without checksums are those of an older ledger, and stand before all others.
    """
    for _, event in read_numbered(path):
        yield event


def read_numbered(path: Path) -> Iterator[tuple[int, Event]]:
    """The same, each event with the number of its line."""
    if not path.exists():
        return
    sums = False
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(strict.MAX_LINE + 1)
            if not line.endswith(b"\n") and len(line) <= strict.MAX_LINE:
                return
            has_sum = False
            try:
                if len(line) > strict.MAX_LINE:
                    raise ValueError(f"longer than {strict.MAX_LINE:,} bytes")
                if not line.strip():
                    continue
                has_sum = strict.is_signed(line.rstrip(b"\n"))
                if sums and not has_sum:
                    raise ValueError("its checksum is missing, and the lines before it have theirs")
                sums = has_sum
                yield number, Event.from_json(line.decode("utf-8"))
            except (ValueError, TypeError, RecursionError) as error:
                raise UnreadableLine(path, number, error, foreign=has_sum) from error


def _cut_torn_line(path: Path) -> int:
    """Ends the file at its last whole line, so that the next event does not continue a torn one; the bytes cut off."""
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)
    return len(data) - keep
