"""A trial's log: one trial's file at a time."""

from __future__ import annotations

import logging
from pathlib import Path

from tuner.worker.trial_log import TrialLog


def test_each_trial_has_what_was_said_while_it_ran(tmp_path: Path) -> None:
    log, library = TrialLog(), logging.getLogger("a.library")
    before = list(logging.getLogger().handlers)
    first, second = tmp_path / "on" / "another" / "0000.log", tmp_path / "0001.log"
    log.open(first)
    library.warning("of the first")
    log.open(second)
    library.warning("of the second")
    log.close()
    log.close()
    library.warning("of none")
    assert "of the first" in first.read_text() and "of the second" not in first.read_text()
    assert "of the second" in second.read_text() and "of none" not in second.read_text()
    assert list(logging.getLogger().handlers) == before
