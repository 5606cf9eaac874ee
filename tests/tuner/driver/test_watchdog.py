"""The watchdog finds a trial that hangs, and no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.contract import ALIVE, STATE
from tuner.driver.watchdog import AT_LEAST_S, TIMES_THE_LONGEST, Watchdog


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def hangs(watchdog: Watchdog, clock: Clock, after: float, running: list[str] | None = None) -> bool:
    """Whether the watchdog, asked once a second, finds that the trial hangs within so many seconds."""
    until = clock.now + after
    while clock.now < until:
        clock.now += 1
        if watchdog.hanging(lambda: ["a"] if running is None else running):
            return True
    return False


def test_silence_beyond_the_timeout_hangs_and_a_report_breaks_it(clock: Clock, tmp_path: Path) -> None:
    watchdog = Watchdog(60, clock)
    watchdog.begin("a", str(tmp_path))
    assert not hangs(watchdog, clock, 59)
    watchdog.heard("a")
    assert not hangs(watchdog, clock, 59)
    assert hangs(watchdog, clock, 2)
    watchdog.end("a")
    assert not hangs(watchdog, clock, 60)


def test_a_sign_counts_when_it_changes_whatever_its_time(clock: Clock, tmp_path: Path) -> None:
    watchdog = Watchdog(60, clock)
    sign = tmp_path / STATE / ALIVE
    sign.parent.mkdir()
    watchdog.begin("a", str(tmp_path))
    for age in (5, 4, 3):
        sign.touch()
        os.utime(sign, (age, age))  # a machine whose clock stands in 1970
        assert not hangs(watchdog, clock, 61)
    assert hangs(watchdog, clock, 61)


def test_what_does_not_run_is_not_silent(clock: Clock, tmp_path: Path) -> None:
    watchdog = Watchdog(60, clock)
    watchdog.begin("a", str(tmp_path))
    for _ in range(5):
        assert not hangs(watchdog, clock, 50, running=[])
    assert not hangs(watchdog, clock, 50)
    assert hangs(watchdog, clock, 20)


def test_a_driver_that_stood_still_blames_nobody(clock: Clock, tmp_path: Path) -> None:
    watchdog = Watchdog(60, clock)
    watchdog.begin("a", str(tmp_path))
    assert not hangs(watchdog, clock, 50)
    clock.now += 10_000  # it waited for room on its disk
    assert not hangs(watchdog, clock, 10)
    assert hangs(watchdog, clock, 3)


def test_by_itself_it_scales_to_what_it_saw(clock: Clock, tmp_path: Path) -> None:
    watchdog = Watchdog(None, clock)
    assert watchdog.timeout == AT_LEAST_S
    watchdog.begin("a", str(tmp_path))
    clock.now += 1000
    watchdog.heard("a")
    assert watchdog.timeout == TIMES_THE_LONGEST * 1000


def test_it_can_be_switched_off(clock: Clock, tmp_path: Path) -> None:
    watchdog = Watchdog(0, clock)
    watchdog.begin("a", str(tmp_path))
    assert not hangs(watchdog, clock, 10_000)
