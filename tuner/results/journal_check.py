"""Checks the ledger against the study's journal, to which an ending is written after the ledger.

A ledger that was cut off between two lines looks like that of a driver that died there. If the journal has an ending
that the ledger lacks, the ledger has lost its end.
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
"""Size of the largest journal that is read; that of a search of 10,000 trials has some 20 MB."""
_MOST_LINE = 1 << 20
"""Bytes of the longest line that is read."""
_STUDY, _DELETED, _CREATED, _STATE = (f'{{"op_code":{code},'.encode() for code in (0, 1, 4, 6))
"""How the lines begin with which Optuna creates a study, deletes one, creates a trial, and changes a trial's state."""
_WORKER = re.compile(rb'\{"op_code":\d+,"worker_id":"([0-9a-f-]{36})-')
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")
"""Optuna's states by their number in the journal."""


class Places:
    """Keeps the place of each trial of the search in a journal: the `trial_id` that Optuna's lines name it by.

    Optuna counts the trials in the journal from 0, those of all studies that are not deleted; somebody else may have
    created some between the search's own. The search's study is the journal's first.
    """

    def __init__(self) -> None:
        self.own: list[int] = []
        """The place of each trial of the search, by its number."""
        self._next = 0
        """The place of the next trial that is created."""
        self._studies: dict[int, str] = {}
        """The names of the studies that are not deleted, by Optuna's id."""
        self._next_study = 0

    @property
    def deleted(self) -> bool:
        """Whether somebody deleted the search's study; further lines of the search would then name another's trials."""
        return self._next_study > 0 and 0 not in self._studies

    def ours(self, line: bytes) -> bytes:
        """Counts a line of the search's own, whose `trial_id` is the trial's number, and returns it with the trial's
        place instead; nothing if the study was deleted."""
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
        """Counts a line of anybody else."""
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

    It is read without Optuna. A missing or damaged journal gives no places and no states. While a driver writes, read
    the journal before the ledger: every ending in it is then in the ledger.
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
    """The UUID of the process that wrote a line, from Optuna's `worker_id`, without the thread's number after it."""
    found = _WORKER.match(line)
    return found[1] if found else b""


def journal_states(journal: Path) -> dict[int, str]:
    """Optuna's state of each of the search's trials by number."""
    return journal_places(journal)[1]


def lost_end(journal: Path, states: Mapping[int, str], records: Iterable[TrialRecord]) -> InputError | None:
    """The error for a ledger that lacks an ending which the journal has; None if it lacks none.

    states: Optuna's state by number, from `journal_states`. records: the ledger's trials.
    """
    known = {record.number: record for record in records}
    ended = {number for number, record in known.items() if record.has_ended or record.judged is not None}
    for number, state in sorted(states.items()):
        if (state in ("COMPLETE", "PRUNED") and number not in ended) or (state == "FAIL" and number not in known):
            return InputError(
                f"has lost its end: it does not know how trial {number} ended, and {journal.name} does",
                where=str(journal.with_name("trials.jsonl")),
                expected="the ledger as the last session left it",
                remedy=f"restore it from a backup; or go on without what it lost: delete {journal}",
            )
    return None
