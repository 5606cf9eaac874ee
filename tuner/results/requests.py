"""What people ask of a running search: one JSON file a request in the run folder's `control/`, one an answer.

A request is written beside its place and renamed, so that the driver never reads half of one. The driver takes it away,
acts, and puts the answer in its place. Whoever asks waits for the answer, and takes back a request that nobody answers:
what is in the folder is either new or being answered. No port, no server: what may write the run folder may ask.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.results.command_line import resume_command_line
from tuner.results.folder import RunFolder
from tuner.results.lock import is_held

WAIT_S = 10.0
"""A driver reads several times a second; one that is silent for so long is starting, or busy for a long moment."""
MOST_BYTES = 2**16


@dataclass(frozen=True)
class Request:
    """action: stop, add, pause or resume. values: what it needs ({"trial": 7})."""

    name: str
    action: str
    values: Mapping[str, Any] = field(default_factory=dict)


# The side that asks


def ask(folder: RunFolder, action: str, values: Mapping[str, Any], wait_s: float = WAIT_S) -> str:
    """Asks the driver of a run, and returns what it answers. Raises InputError where it refuses, or is not there."""
    _require_driver(folder)
    control = folder.control
    control.mkdir(exist_ok=True)
    name = uuid.uuid4().hex
    place, reply = control / f"{name}.json", control / f"{name}.answer"
    _write(place, {"action": action, **values})
    deadline = time.monotonic() + wait_s
    try:
        while not reply.exists():
            time.sleep(0.02)
            gone = not is_held(folder.path)
            if gone or (time.monotonic() > deadline and _withdrawn(place)):
                if reply.exists():
                    break
                _require_driver(folder)
                raise InputError(
                    f"the driver of {folder.name!r} has not answered for {wait_s:.0f} s, and the request is withdrawn",
                    where=str(folder.path),
                    remedy="it takes requests from its first trial on; try again, or look at logs/driver.log",
                )
        answer = json.loads(reply.read_text(encoding="utf-8"))
    finally:
        place.unlink(missing_ok=True)
        reply.unlink(missing_ok=True)
    if "error" in answer:
        raise InputError(**answer["error"])
    return str(answer["message"])


def _require_driver(folder: RunFolder) -> None:
    if is_held(folder.path):
        return
    over = folder.record().finished
    raise InputError(
        f"no driver runs the search {folder.name!r}" + ("; it is over" if over else ""),
        where=str(folder.path),
        expected="a running search",
        remedy=f"go on with it: {resume_command_line(folder.path)}",
    )


def _withdrawn(place: Path) -> bool:
    """Takes a request back; False where the driver has taken it."""
    try:
        place.unlink()
    except FileNotFoundError:
        return False
    return True


# The driver's side


def clear(folder: RunFolder) -> None:
    """Makes the place for requests, and empties it: what lies there was asked of an earlier driver."""
    folder.control.mkdir(exist_ok=True)
    for left in folder.control.iterdir():
        left.unlink(missing_ok=True)


def take(folder: RunFolder) -> list[Request]:
    """The requests that have come, oldest first; they are out of the folder then. One that is none is answered here."""
    try:
        found = sorted(folder.control.glob("*.json"), key=lambda place: place.stat().st_mtime)
    except OSError:
        return []  # one was withdrawn as we looked, or the folder is gone: next time
    taken = []
    for place in found:
        try:
            if place.is_symlink() or place.stat().st_size > MOST_BYTES:
                raise ValueError("not a request")
            data = json.loads(place.read_text(encoding="utf-8"))
            taken.append(Request(place.stem, str(data.pop("action")), data))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
            answer(folder, place.stem, error=InputError(f"cannot read the request ({error})"))
        place.unlink(missing_ok=True)
    return taken


def answer(folder: RunFolder, name: str, *, message: str = "", error: InputError | None = None) -> None:
    """Answers the request called `name`."""
    said: dict[str, Any] = {"message": message}
    if error is not None:
        said = {"error": {"what": error.what, "where": error.where, "expected": error.expected, "remedy": error.remedy}}
    _write(folder.control / f"{name}.answer", said)


def _write(place: Path, value: Any) -> None:
    beside = place.with_suffix(".new")
    beside.write_text(json.dumps(value), encoding="utf-8")
    beside.replace(place)
