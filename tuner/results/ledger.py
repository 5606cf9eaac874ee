"""The ledger: `trials.jsonl`, one JSON object a line, appended and flushed to disk, never changed.

Every line has the same fields (`EVENT_FIELDS`, null where an event has no such value); `details` holds more. Numbers
that JSON cannot write (NaN and the infinities) are the strings "NaN", "Infinity" and "-Infinity", so that any strict
JSON reader can read a ledger and nothing that was measured is lost. `sum`, the last member of a line, is the CRC-32 of
the line without it.
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
    """What an event is about.

    A session: `search` begins it and `finished` ends it; `prepared` has the facts of data and base, `note` a sentence
    for the user. Requests of a person: `paused`, `resumed`, `stopped`, and `added`, a point that becomes a trial when a
    worker is free. The others are about one trial. `retry` ends an attempt of a trial that is tried again, and says
    why. `parked` ends an attempt of a trial that waits, with a saved state and without an ending, until the scheduler
    lets it go on (`started` again) or ends it.
    """

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
    """One line of the ledger. A field is None where the event has no such value."""

    event: Kind
    """What it is about."""
    time: float = 0.0
    """When it was written, in seconds since 1970."""
    trial: str | None = None
    """Ray's id of the attempt."""
    number: int | None = None
    """The trial's number in the search, from 0."""
    attempt: int | None = None
    """The number of the attempt at the trial, from 1."""
    params: Mapping[str, Any] | None = None
    """The trial's point of the space: values by parameter."""
    step: int | None = None
    """Optimizer steps taken."""
    tokens: int | None = None
    """Training tokens seen, padding excluded."""
    metrics: Mapping[str, float | None] | None = None
    """What an evaluation measured, by name."""
    best: Mapping[str, float | None] | None = None
    """The best value so far of the search's first objective, by its name."""
    status: str | None = None
    """How the trial ended (`Status`)."""
    reason: str | None = None
    """Why the trial ended or is tried again, or why the search was halted (`Reason`)."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only events of this kind have, by name."""

    def to_json(self) -> str:
        """The event as one line of strict JSON, with its checksum."""
        values = {name: getattr(self, name) for name in EVENT_FIELDS}
        values = {name: _encode(value) for name, value in {**values, **self.earlier_keys}.items()}
        return strict.signed(json.dumps(values, allow_nan=False, separators=(",", ":")))

    @property
    def earlier_keys(self) -> Mapping[str, float | None]:
        """What version 0.1 had instead of `metrics` and `best`."""
        return earlier_keys.last_and_best(self.metrics, self.best)

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Reads one line. Unknown fields are ignored, so that newer ledgers can be read. Raises ValueError (or
        TypeError) for a line that is no event of this version."""
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
"""The fields of a line, in this order."""


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(k): _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return value


def steady_clock() -> Callable[[], float]:
    """A clock in seconds since 1970. It begins with the system's time and runs on by itself: if the system's clock is
    set, even by a month, no duration changes. Time in which the machine sleeps counts."""
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time() - time.clock_gettime(kind)
    return lambda: offset + time.clock_gettime(kind)


SYNC_EVERY_S = 1.0
"""Seconds between two times that events of a running trial are forced to the disk."""

_BRIEF = frozenset({Kind.STARTED, Kind.SETUP, Kind.EVALUATION})
"""Events that need not be forced to the disk at once."""


class Ledger:
    """Appends events to a file and calls listeners with them. It is the only writer: the run folder is locked.

    A line is in the file before `append` returns and before a listener gets its event, so a driver that dies loses
    nothing that a person has seen. Against a crash of the machine, lines are also forced to the disk (fsync): an ending
    at once, reports of a running trial at most once a second. Such a crash thus loses at most a second of reports of
    trials that it cuts off, and a resume runs these again. To force every line would take a search of short trials more
    time than its training.

    Secrets in an event's texts are redacted before it is written.

    full: called with the error if the disk has no room for a line; when it returns, the line is tried again. What was
    written of a line before an error is removed.
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
        """Bytes that were cut off: the file's last line, which a crash had left incomplete."""
        self._file = path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        """Bytes of the complete lines."""
        self._synced = -math.inf
        """The monotonic time of the last fsync."""
        self._now = steady_clock()
        self._torn = False
        """Whether a part of a line follows the complete ones."""
        self._turn = threading.RLock()

    def seize(self, within: float) -> bool:
        """Takes the ledger for this thread and never gives it back; returns whether that worked within `within`
        seconds. Of two threads that write the end of a search, the second one then waits until the process ends."""
        return self._turn.acquire(timeout=within)

    def append(self, kind: Kind, **values: Any) -> Event:
        """Writes an event and calls the listeners with it. values: its other fields. Raises OSError if it cannot be
        written."""
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

    @property
    def size(self) -> int:
        """Bytes of the file's complete lines."""
        return self._size

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Adds a listener."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, line: bytes, *, brief: bool) -> None:
        try:
            if self._torn:
                self._cut_torn()
            written = 0
            while written < len(line):  # a disk that fills up takes a part of a line without an error
                written += self._file.write(line[written:]) or 0
            now = time.monotonic()
            if not brief or now - self._synced >= SYNC_EVERY_S:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError:
            self._torn = True
            with suppress(OSError):  # if this fails, it is done before the next line, which must not follow half of one
                self._cut_torn()
            raise
        self._size += len(line)

    def _cut_torn(self) -> None:
        """Removes the part of a line that was written last."""
        self._file.truncate(self._size)
        self._torn = False


class UnreadableLine(ValueError):
    """A line of a ledger that cannot be used.

    number: the line's, from 1. foreign: its checksum is right, but this version does not know the event: a newer one
    wrote it.
    """

    def __init__(self, path: Path, number: int, why: object, foreign: bool = False) -> None:
        self.path, self.number, self.foreign = path, number, foreign
        super().__init__(f"{path}, line {number}: not a ledger event ({why})")


def read_ledger(path: Path) -> Iterator[Event]:
    """Yields the events of a ledger, oldest first.

    A last line without a newline is left out: a crash interrupted its write, before any listener got it. Any other line
    that cannot be read, or whose checksum is wrong, raises UnreadableLine. Lines without a checksum are from an older
    version, and come before all others.
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


class LedgerTail:
    """Reads a ledger that another process writes, from where it has read before."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._number = path, 0, 0

    def new(self) -> list[Event]:
        """The events whose lines were completed since the last call, oldest first. Raises UnreadableLine."""
        found = []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        for line in complete.split(b"\n") if newline else ():
            self._number += 1
            try:
                found += [Event.from_json(line.decode("utf-8"))] if line.strip() else []
            except (ValueError, TypeError, RecursionError) as error:
                raise UnreadableLine(self._path, self._number, error) from error
        return found


def _cut_torn_line(path: Path) -> int:
    """Removes an incomplete last line, so that the next event begins a line; returns the bytes that were removed."""
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)
    return len(data) - keep
