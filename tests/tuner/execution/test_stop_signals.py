"""Signals sent to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from tuner.execution.signals import StopRequested, StopSignals


def test_the_first_asks_and_the_second_raises() -> None:
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() and signals.number == signal.SIGTERM
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGTERM, "the first is the one that the exit code tells of"


def test_what_is_done_whole_is_done_to_its_end() -> None:
    done = []
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequested), signals.whole():
            with signals.whole():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("ledger")
            done.append("study")
    assert done == ["ledger", "study"]
