"""The study's journal as a witness of the ledger: it hears of an ending second, so it must never know of one alone.

A ledger that was cut between two lines looks like that of a driver which died there. Where the journal knows of an
ending beyond the cut, it was not the driver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tuner.contract import InputError
from tuner.results.records import TrialRecord
from tuner.results.untrusted_read import is_plain_file

MOST_BYTES = 256 << 20
"""Of a journal: a search of 10,000 trials has some 20 MB."""
_MOST_LINE = 1 << 20
_STUDY, _DELETED, _CREATED, _STATE = (f'{{"op_code":{code},'.encode() for code in (0, 1, 4, 6))
_WORKER = re.compile(rb'\{"op_code":\d+,"worker_id":"([0-9a-f-]{36})-')
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")


class Places:
    """Which place in a journal each trial of the search has: others may have created some in between.

    A place is counted up by every trial that is created in a study that is there; the search's study is the first.
    """

    def __init__(self) -> None:
        self.own: list[int] = []
        """The place of each trial of the search, by its number."""
        self._next = 0
        self._studies: dict[int, str] = {}
        self._next_study = 0

    @property
    def deleted(self) -> bool:
        """Whether somebody deleted the search's study: what is written of it from then on would be another's."""
        return self._next_study > 0 and 0 not in self._studies

    def ours(self, line: bytes) -> bytes:
        """A line of the search's own, as it must stand in the file; nothing where its study was deleted."""
        if self.deleted:
            return b""
        if line.startswith(_CREATED):
            self.own.append(self._next)
            self._next += 1
        elif line.startswith(_STUDY):
            self.others(line)
        elif len(self.own) != self._next and b'"trial_id":' in line:
            log = json.loads(line)
            if "trial_id" in log:
                log["trial_id"] = self.own[log["trial_id"]]
            return json.dumps(log, separators=(",", ":")).encode() + b"\n"
        return line

    def others(self, line: bytes) -> None:
        """Takes note of anybody's line."""
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log = json.loads(line)
            match log["op_code"]:
                case 0 if log["study_name"] not in self._studies.values():
                    self._studies[self._next_study] = log["study_name"]
                    self._next_study += 1
                case 1:
                    self._studies.pop(log["study_id"], None)
                case 4 if log["study_id"] in self._studies:
                    self._next += 1


def journal_places(journal: Path) -> tuple[Places, dict[int, str]]:
    """The places of the search's trials in its journal, and Optuna's state of each by number, as the search wrote it.
    Read without Optuna; of a journal that is damaged, or none, nothing.

    While a driver writes, ask this before the ledger is read: what is told here is there by then.
    """
    places, states, owner = Places(), dict[int, str](), b""
    numbers: dict[int, int] = {}
    try:
        if not is_plain_file(journal) or journal.stat().st_size > MOST_BYTES:
            return Places(), {}
        with journal.open("rb") as file:
            while (line := file.readline(_MOST_LINE)).endswith(b"\n"):
                owner = owner or _worker(line)
                mine = _worker(line) == owner
                if line.startswith(_CREATED) and mine:
                    number = len(places.own)
                    places.ours(line)
                    if len(places.own) > number:
                        numbers[places.own[number]] = number
                        states[number] = _STATES[json.loads(line).get("state") or 0]
                elif line.startswith(_STATE) and mine:
                    change = json.loads(line)
                    states[numbers[change["trial_id"]]] = _STATES[change["state"]]
                elif line.startswith((_CREATED, _STUDY, _DELETED)):
                    places.others(line)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Places(), {}
    return places, states


def _worker(line: bytes) -> bytes:
    """Who wrote a line of a journal: a UUID; the number of the thread that follows it says nothing here."""
    found = _WORKER.match(line)
    return found[1] if found else b""


def journal_states(journal: Path) -> dict[int, str]:
    """Optuna's state of each of the search's trials by number."""
    return journal_places(journal)[1]


def lost_end(journal: Path, told: Mapping[int, str], records: Iterable[TrialRecord]) -> InputError | None:
    """What is to be said of a ledger that does not know of an ending which the journal knows. told: by number, the
    journal's word for it."""
    known = {record.number: record for record in records}
    ended = {number for number, record in known.items() if record.has_ended or record.judged is not None}
    for number, state in sorted(told.items()):
        if (state in ("COMPLETE", "PRUNED") and number not in ended) or (state == "FAIL" and number not in known):
            return InputError(
                f"has lost its end: it does not know how trial {number} ended, and {journal.name} does",
                where=str(journal.with_name("trials.jsonl")),
                expected="the ledger as the last session left it",
                remedy=f"restore it from a backup; or go on without what it lost: delete {journal}",
            )
    return None
