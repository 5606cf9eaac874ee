"""The ledger: `trials.jsonl`, one JSON object a line, appended and flushed to disk, never changed.

Every line has the same leading fields (`EVENT_FIELDS`, null where an event has no such thing) and may carry more in
`details`. Numbers that JSON cannot write (NaN and the infinities) stand as the strings "NaN", "Infinity" and
"-Infinity", so that any strict JSON reader can read a ledger and nothing that was measured is lost.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import IO, Any


class Kind(StrEnum):
    """What an event says. `search` opens a session of a search, `finished` closes it; the rest is about one trial,
    except `prepared` (data and base), `note` (a sentence for the user), and what somebody asked of the running search:
    `paused`, `resumed`, `stopped`, and `added`, a point that becomes a trial when a worker is free."""

    SEARCH = "search"
    PREPARED = "prepared"
    NOTE = "note"
    STARTED = "started"
    SETUP = "setup"
    EVALUATION = "evaluation"
    ENDED = "ended"
    INTERRUPTED = "interrupted"
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
    eval_loss: float | None = None
    best_eval_loss: float | None = None
    status: str | None = None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of strict JSON."""
        values = {name: _encode(getattr(self, name)) for name in EVENT_FIELDS}
        return json.dumps(values, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Event:
        """Reads one line. Unknown fields are ignored, so that a newer ledger can be read. Raises ValueError."""
        values = json.loads(line)
        if not isinstance(values, dict) or "event" not in values:
            raise ValueError("not a ledger event")
        known: dict[str, Any] = {name: values[name] for name in EVENT_FIELDS if values.get(name) is not None}
        known["event"] = Kind(values["event"])
        for name in ("eval_loss", "best_eval_loss"):
            if name in known:
                known[name] = float(known[name])  # also "NaN" and "Infinity"
        return cls(**known)


EVENT_FIELDS = tuple(f.name for f in fields(Event))


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(k): _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    return value


class Ledger:
    """Appends events to a file and tells listeners.

    A line is on disk (flushed and fsynced) before `append` returns and before any listener hears of it, so what a
    person has seen is never lost. One writer: the run folder's lock sees to that.
    """

    def __init__(self, path: Path, listeners: Iterable[Callable[[Event], None]] = ()) -> None:
        self._path = path
        self._listeners = list(listeners)
        _cut_torn_line(path)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def append(self, kind: Kind, **values: Any) -> Event:
        event = Event(event=kind, time=time.time(), **values)
        self._file.write(event.to_json() + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        for listener in self._listeners:
            listener(event)
        return event

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Tells `listener` every event from here on, after those who listened before."""
        self._listeners.append(listener)

    def close(self) -> None:
        self._file.close()


def read_ledger(path: Path) -> Iterator[Event]:
    """Yields the events of a ledger, oldest first.

    A last line without its newline was torn by a crash in the middle of a write: it was never told to anyone and is
    left out. Any other line that cannot be read raises ValueError with its number.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            if not line.strip():
                continue
            try:
                yield Event.from_json(line)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a ledger event ({error})") from error


def _cut_torn_line(path: Path) -> None:
    """Ends the file at its last whole line, so that the next event does not continue a torn one."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            file.truncate(keep)
