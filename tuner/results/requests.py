"""Requests to the driver of a running search: one JSON file a request in the run folder's `control/`, one an answer.

A request is written under another name and renamed, so that the driver never reads half of one. The driver removes it,
acts, and writes the answer. The process that asks waits for the answer, and removes a request that the driver does not
take, so no old request stays in the folder. There is no port and no server: whoever may write the run folder may ask.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.disks import replace_file
from tuner.results.command_line import resume_command_line, run_command_line
from tuner.results.folder import RunFolder
from tuner.results.lock import is_held
from tuner.results.untrusted_read import read_object

WAIT_S = 10.0
"""Seconds to wait for the driver to take a request. It looks several times a second; one that takes longer is starting
or busy."""
PATIENCE = 6
"""An answer is waited for this many times as long once the driver has taken the request: it may wait for room on its
disk."""
MOST_BYTES = 2**16
"""The largest request that is read."""
MOST_AT_ONCE = 200
"""The most requests that are taken in one turn of the driver's loop; they take about 20 ms."""
MOST_NAMED = 20
"""The most entries of the folder that are reported as no requests, each in a note of the ledger."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.json")


@dataclass(frozen=True)
class Request:
    """One request to the driver."""

    name: str
    """Its id, which the answer's file is named after."""
    action: str
    """stop, add, pause or resume."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The action's arguments ({"trial": 7})."""


# The side that asks


def ask(folder: RunFolder, action: str, values: Mapping[str, Any], wait_s: float = WAIT_S) -> str:
    """Asks the driver of a run, and returns its answer. wait_s: seconds in which it has to take the request.

    Raises InputError if there is no driver, if it refuses, or if it does not answer.
    """
    _require_driver(folder)
    control = folder.control
    name = uuid.uuid4().hex
    place, reply = control / f"{name}.json", control / f"{name}.answer"
    try:
        control.mkdir(exist_ok=True)
        replace_file(place, json.dumps({"action": action, **values}))
    except OSError as error:
        told = f"the request cannot be written ({error.strerror or error})"
        raise InputError(told, where=str(control), expected="a folder that this user may write") from error
    deadline = time.monotonic() + wait_s
    try:
        while not os.path.lexists(reply):
            time.sleep(0.02)
            gone = not is_held(folder.path)
            if gone or (time.monotonic() > deadline and _withdraw(place)):
                if os.path.lexists(reply):
                    break
                _require_driver(folder)
                silent = "has ended, and another has begun" if gone else f"has not answered for {wait_s:.0f} s"
                raise InputError(
                    f"the driver of {folder.name!r} {silent}; the request is withdrawn",
                    where=str(folder.path),
                    remedy="it takes requests from its first trial on; try again, or look at logs/driver.log",
                )
            if time.monotonic() > deadline + PATIENCE * wait_s:
                raise InputError(
                    f"the driver of {folder.name!r} has taken the request and not answered",
                    where=str(folder.path),
                    remedy=f"look at {run_command_line(folder.path, 'status', folder.name)}, and at its notes",
                )
        answer = read_object(reply, links=False)
    finally:
        for left in (place, reply):
            with suppress(OSError):
                left.unlink(missing_ok=True)
    refused = answer.get("error")
    if isinstance(refused, dict):
        texts = {name: str(refused.get(name, "")) for name in ("what", "where", "expected", "remedy")}
        raise InputError(texts.pop("what"), **texts)
    return str(answer.get("message", ""))


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


def _withdraw(place: Path) -> bool:
    """Removes a request; False if the driver has taken it already."""
    try:
        place.unlink()
    except OSError:
        return False
    return True


# The driver's side


class Inbox:
    """Reads the requests to the driver of a run, and writes the answers. Others may write into the folder: an entry
    that is no request is reported once, and does not keep the driver from reading the others.

    say: takes a sentence for the user.
    """

    def __init__(self, folder: RunFolder, say: Callable[[str], None]) -> None:
        self._control, self._say = folder.control, say
        self._strange: set[str] = set()

    def clear(self) -> None:
        """Makes the folder for requests, and empties it: what is in it was meant for an earlier driver."""
        try:
            self._control.mkdir(exist_ok=True)
        except OSError as error:
            self._name("", error.strerror or str(error))
            return
        for name in self._names():
            try:
                (self._control / name).unlink()
            except OSError as error:
                self._name(name, error.strerror or str(error))

    def take(self) -> list[Request]:
        """Removes the new requests from the folder and returns them, oldest first, at most `MOST_AT_ONCE`. A file that
        cannot be read as one is answered here."""
        found = []
        for name in self._names():
            if name in self._strange or not name.endswith(".json"):
                continue
            try:
                about = (self._control / name).lstat()
            except OSError:
                continue  # withdrawn meanwhile
            if stat.S_ISREG(about.st_mode) and _NAME.fullmatch(name):
                found.append((about.st_mtime_ns, name))
            else:
                self._name(name, "no file" if _NAME.fullmatch(name) else "no name of a request")
        return [request for _, name in sorted(found)[:MOST_AT_ONCE] if (request := self._read(name)) is not None]

    def answer(self, name: str, *, message: str = "", error: InputError | None = None) -> None:
        """Answers the request called `name`."""
        said: dict[str, Any] = {"message": message}
        if error is not None:
            parts = {"what": error.what, "where": error.where, "expected": error.expected, "remedy": error.remedy}
            said = {"error": parts}
        try:
            replace_file(self._control / f"{name}.answer", json.dumps(said))
        except OSError as failed:
            self._name(f"{name}.answer", failed.strerror or str(failed))

    def _read(self, name: str) -> Request | None:
        place = self._control / name
        try:
            data = read_object(place, MOST_BYTES, links=False)
            action = data.pop("action", None)
            if not isinstance(action, str):
                raise InputError("names no action", expected="an object with `action`")
            request = Request(place.stem, action, data)
        except InputError as error:
            if not place.exists():
                return None
            request, refusal = None, InputError(f"cannot read the request ({error.what})", expected=error.expected)
        try:  # before it is carried out: a request that stays in the folder would be carried out again
            place.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._name(name, error.strerror or str(error))
            return None
        if request is None:
            self.answer(place.stem, error=refusal)
        return request

    def _names(self) -> list[str]:
        if self._control.is_symlink():  # it leads to a folder that is not the run's
            self._name("", "a link")
            return []
        try:
            return os.listdir(self._control)  # noqa: PTH208  only names are needed, and there may be thousands
        except OSError:
            return []  # the folder was removed

    def _name(self, name: str, why: str) -> None:
        """Reports an entry that is no request, once. name: "" for the folder itself."""
        if name in self._strange:
            return
        self._strange.add(name)
        if not name:
            self._say(f"no request is heard: {self._control} is not the folder that it should be ({why})")
        elif len(self._strange) <= MOST_NAMED:
            place = f"{self._control.name}/{ascii(name)[1:-1][:80]}"
            self._say(f"{place} is no request and is left alone ({why})")
        elif len(self._strange) == MOST_NAMED + 1:
            self._say(f"{self._control.name}/ has more entries that are no requests; they are not named")
