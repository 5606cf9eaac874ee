"""Signals sent to this very process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tuner.signals import SIGNALS, StopRequested, StopSignals, signals_raised


def test_the_first_asks_and_the_second_raises() -> None:
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() and signals.first == signal.SIGTERM
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.first == signal.SIGTERM, "the first is the one that the exit code tells of"


class Collected:
    """A signal comes while Python collects it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # the handler runs between two instructions
            pass


def test_a_signal_in_a_del_is_not_dropped_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.unraisablehook
    with StopSignals() as signals, pytest.raises(StopRequested) as found:
        Collected()
        began = time.monotonic()
        while time.monotonic() < began + 2:
            time.sleep(0.01)
    assert found.value.number == signals.first == signal.SIGTERM and time.monotonic() < began + 1
    assert sys.unraisablehook is before and capfd.readouterr().err == ""


def test_nor_where_no_search_runs(capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.unraisablehook
    with pytest.raises(StopRequested) as found, signals_raised():
        Collected()
        began = time.monotonic()
        while time.monotonic() < began + 2:
            time.sleep(0.01)
    assert found.value.number == signal.SIGTERM and time.monotonic() < began + 1
    assert sys.unraisablehook is before and capfd.readouterr().err == ""


def test_other_exceptions_in_a_del_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_value))

    class Faulty:
        def __del__(self) -> None:
            raise ValueError("x")

    with StopSignals():
        Faulty()
    assert [str(error) for error in told] == ["x"]


def test_what_is_done_whole_is_done_to_its_end() -> None:
    done = []
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopRequested), signals.uninterrupted():
            with signals.uninterrupted():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("ledger")
            done.append("study")
    assert done == ["ledger", "study"]


def test_an_alarm_that_ray_has_set_does_not_abort_what_is_put_away() -> None:
    with StopSignals() as signals:
        signals.defer()
        signal.alarm(60)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.first == signal.SIGTERM and signal.alarm(0) == 0


def test_nor_does_it_where_rays_own_handler_answered() -> None:
    with StopSignals() as signals:
        signal.alarm(60)
        signals.mute()
        assert signal.alarm(0) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_each_of_the_four_asks(number: int) -> None:
    with StopSignals() as signals:
        with pytest.raises(StopRequested) as raised:
            os.kill(os.getpid(), number)
        assert raised.value.number == signals.first == number


def test_nohup_is_meant() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.requested() and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_written_last_is_not_interrupted() -> None:
    with StopSignals() as signals:
        signals.mute()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not signals.requested()


def test_running_steps_have_their_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second signal from anybody, the wait for them ends."""
    monkeypatch.setattr("tuner.signals.GRACE_S", 0.2)
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested):
            time.sleep(10)
        assert signals.first == signal.SIGTERM


def test_a_main_thread_that_answers_nothing_is_not_waited_for() -> None:
    """It stands in a call that no signal interrupts."""
    code = """
import ctypes, os, signal, sys, threading
from functools import partial
from tuner import signals
signals.GRACE_S, signals.ENDS_WITHIN_S = 0.1, 0.3
with signals.StopSignals() as stop:
    stop.end_process = partial(signals.exit_now, text="last words\\n")
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "last words\n")


def test_a_command_that_is_no_search_clears_away_and_leaves() -> None:
    with pytest.raises(StopRequested) as found, signals_raised():
        os.kill(os.getpid(), signal.SIGHUP)
    assert found.value.number == signal.SIGHUP
    cleared = []
    with pytest.raises(StopRequested), signals_raised():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # the group's, after the process's
            cleared.append(True)
    assert cleared


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
