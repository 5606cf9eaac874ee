"""Times in a ledger when the clock is set meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tuner.results.ledger import Kind, Ledger, read_ledger
from tuner.results.records import SearchRecord

MONTH, DAY = 30 * 86_400, 86_400


@pytest.mark.parametrize("shift", [MONTH, -DAY, 1e-3])
def test_a_clock_that_is_set_changes_no_duration(tmp_path: Path, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    before, true = time.time(), time.time
    ledger = Ledger(tmp_path / "trials.jsonl")
    ledger.append(Kind.SEARCH, details={"name": "x", "num_trials": 1})
    ledger.append(Kind.STARTED, number=0, attempt=1, trial="a")
    monkeypatch.setattr(time, "time", lambda: true() + shift)
    ledger.append(Kind.ENDED, number=0, attempt=1, trial="a", status="failed", reason="error")
    ledger.close()
    record = SearchRecord.fold(read_ledger(tmp_path / "trials.jsonl"))
    trial = record.trials[0]
    assert 0 <= record.wall_s < 60 and trial.started and trial.ended and 0 <= trial.ended - trial.started < 60
    assert record.started and abs(record.started - before) < 60, "the time of day, for people"


def test_the_next_session_has_the_clock_as_it_is_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = time.time
    for shift in (0, MONTH):
        monkeypatch.setattr(time, "time", lambda shift=shift: true() + shift)
        ledger = Ledger(tmp_path / "trials.jsonl")
        ledger.append(Kind.SEARCH, details={"name": "x", "num_trials": 1})
        ledger.append(Kind.NOTE, details={"text": "here"})
        ledger.close()
    first, _, second, _ = read_ledger(tmp_path / "trials.jsonl")
    assert second.time - first.time >= MONTH
    assert SearchRecord.fold(read_ledger(tmp_path / "trials.jsonl")).wall_s < 60
