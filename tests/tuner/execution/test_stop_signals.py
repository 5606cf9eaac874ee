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


def test_an_alarm_that_ray_has_set_does_not_abort_what_is_put_away() -> None:
    with StopSignals() as signals:
        signals.defer()
        signal.alarm(60)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.number == signal.SIGTERM and signal.alarm(0) == 0


def test_nor_does_it_where_rays_own_handler_answered() -> None:
    with StopSignals() as signals:
        signal.alarm(60)
        signals.mute()
        assert signal.alarm(0) == 0


@pytest.mark.parametrize(("ends", "stopped"), [(False, True), (True, False), (True, True)])
def test_after_a_stop_nothing_ends_the_process_before_its_last_line(ends: bool, stopped: bool) -> None:
    class Before:
        def __call__(self, number: int, frame: object) -> None: ...

    before = Before()
    before.ends = ends  # type: ignore[attr-defined]
    outside = signal.signal(signal.SIGTERM, before)
    try:
        with StopSignals() as signals:
            signals.defer()
            if stopped:
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if ends and stopped else before)
    finally:
        signal.signal(signal.SIGTERM, outside)
