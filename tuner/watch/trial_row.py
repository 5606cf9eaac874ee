"""The task that is a trial's row in the Ray dashboard: it runs beside the trial and prints what the ledger says of it.

The task's name is the trial's title, which the dashboard shows from the moment the task is submitted. Its log, which
the task's page opens on, has the trial's reports in their order, the trial's own log, and the ending as its last line.
It returns when the attempt is over, and raises where the trial failed: only a failed trial is red.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.contract import Status
from tuner.results.ledger import Event, Kind

LOOK_S = 0.25
"""Seconds between two looks at the ledger; a look takes some 30 microseconds."""
MOST_LOG_BYTES = 2**16
"""The most that is passed on of a trial's log with one report; all of it is in the run folder."""
_OVER = (Kind.ENDED, Kind.RETRY, Kind.PARKED, Kind.INTERRUPTED)


@dataclass(frozen=True)
class Row:
    """An attempt at a trial, and where the ledger and the log are on the driver's node."""

    title: str
    """The task's name: search, number and parameters."""
    number: int
    """The trial's number."""
    attempt: int
    """The attempt's number, from 1."""
    ledger: str
    """The ledger's file."""
    offset: int
    """The byte of the ledger at which the attempt's events begin."""
    log: str
    """The trial's log file."""
    objective: str = ""
    """The name of what the search makes better."""
    about: tuple[str, ...] = ()
    """Lines that the row's log begins with."""


class TrialFailed(Exception):
    """The trial failed; the message is its ending."""


def trial(row: Row) -> None:
    """Prints what the ledger says of the attempt until it is over. Raises TrialFailed where the trial failed."""
    _say(row.title, *row.about, f"log    {row.log}")
    of_trial, of_ledger, steps = _Tail(Path(row.log)), _Tail(Path(row.ledger), row.offset), 0
    while Path(row.ledger).exists():
        for event in _events(of_ledger.lines(), row):
            steps = event.details.get("max_steps", steps) if event.event is Kind.SETUP else steps
            _say(*of_trial.lines(MOST_LOG_BYTES), *_told(event, row.objective, steps))
            if event.event in _OVER:
                if event.status == Status.FAILED:
                    raise TrialFailed(ending(event))
                return
        time.sleep(LOOK_S)
    _say("the run folder is gone")


def trial_ended() -> None:
    """Does nothing: the name of its task is the ending of a trial."""


def ends(event: Event) -> bool:
    """Whether an attempt at a trial is over with this event."""
    return event.event in _OVER


def ending(event: Event) -> str:
    """The end of an attempt with its reason, in one line: "pruned at step 40: rung 1 (3.000, needed 2.000)"."""
    at = f" at step {event.step}" if event.step else ""
    message = str(event.details.get("message") or event.reason or "").partition("\n")[0]
    match event.event:
        case Kind.RETRY:
            return f"tried again: {message}"
        case Kind.PARKED:
            return f"parked{at}: it goes on if the scheduler lets it"
        case Kind.INTERRUPTED:
            return "interrupted: a resumed search goes on with it"
        case _:
            return f"{event.status}{at}: {message}"


def _told(event: Event, objective: str, steps: int) -> Iterator[str]:
    """The lines on an event."""
    match event.event:
        case Kind.SETUP:
            yield f"set up, {steps} steps"
        case Kind.EVALUATION:
            value, best = ((found or {}).get(objective) for found in (event.metrics, event.best))
            told = f"no {objective}" if value is None else f"{value:.4g}"
            width = len(str(steps))
            yield f"step {event.step:>{width}}/{steps} · {told}" + ("" if best is None else f" · best {best:.4g}")
        case _ if ends(event):
            if remedy := event.details.get("remedy"):
                yield str(remedy)
            yield ending(event)


def _events(lines: list[str], row: Row) -> Iterator[Event]:
    """The events of the attempt among lines of the ledger."""
    for line in lines:
        if f'"number":{row.number},' not in line:  # to parse every line would cost each row what all trials report
            continue
        try:
            event = Event.from_json(line)
        except (ValueError, TypeError):
            continue
        if (event.number, event.attempt) == (row.number, row.attempt):
            yield event


class _Tail:
    """The complete lines that are added to a file, from byte `offset` on."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path, self._read = path, offset

    def lines(self, most: int | None = None) -> list[str]:
        """The lines since the last call; of more than `most` bytes the last. Nothing where there is no file: a trial's
        log may be on another machine."""
        try:
            size = self._path.stat().st_size
            if size <= self._read:
                return []
            start = self._read if most is None else max(self._read, size - most)
            with self._path.open("rb") as file:
                file.seek(start)
                text = file.read(size - start)
        except OSError:
            return []
        whole = text.rfind(b"\n") + 1
        self._read = start + whole
        return text[:whole].decode("utf-8", "replace").splitlines()


def _say(*lines: str) -> None:
    """Prints lines to standard error: the page of a task opens on it."""
    sys.stderr.writelines(f"{line}\n" for line in lines)
    sys.stderr.flush()
