"""The study's journal as a witness of the ledger: it hears of an ending second, so it must never know of one alone.

A ledger that was cut between two lines looks like that of a driver which died there. Where the journal knows of an
ending beyond the cut, it was not the driver.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tuner.contract import InputError
from tuner.results.records import TrialRecord
from tuner.results.stranger import is_plain_file

MOST_BYTES = 256 << 20
"""Of a journal: a search of 10,000 trials has some 20 MB."""
_MOST_LINE = 1 << 20
_CREATED, _STATE = b'{"op_code":4,', b'{"op_code":6,'
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")


def journal_states(journal: Path) -> dict[int, str]:
    """Optuna's state of each trial by number, read without Optuna; of a journal that is damaged, or none, nothing.

    While a driver writes, ask this before the ledger is read: what is told here is there by then.
    """
    states: dict[int, str] = {}
    try:
        if not is_plain_file(journal) or journal.stat().st_size > MOST_BYTES:
            return {}
        with journal.open("rb") as file:
            while (line := file.readline(_MOST_LINE)).endswith(b"\n"):
                if line.startswith(_CREATED):
                    states[len(states)] = _STATES[json.loads(line).get("state") or 0]
                elif line.startswith(_STATE):
                    change = json.loads(line)
                    states[change["trial_id"]] = _STATES[change["state"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return {}
    return states


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
