"""A listener that raises cannot end a search."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.tuner.report import searches
from tuner.results.ledger import Event, Ledger
from tuner.signals import StopRequested
from tuner.watch.listeners import Dropped, Listeners


class Breaks:
    """A listener that raises at its third event."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self, event: Event) -> None:
        self.heard += 1
        if self.heard == 3:
            raise OSError("the wall is gone")

    def say(self, text: str) -> None:
        raise ValueError(text)


def test_a_listener_that_raises_is_dropped_and_the_others_hear_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    breaks = Breaks()
    listeners = Listeners([breaks])
    listeners.add(heard.append)
    ledger = Ledger(tmp_path / "trials.jsonl", [listeners])
    events = searches.finished().events
    with caplog.at_level(logging.WARNING):
        for event in events:
            ledger.append(event.event, number=event.number)
        listeners.say("paused")
        listeners.say("goes on")
    assert len(heard) == len(events) and breaks.heard == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the listener Breaks failed, and the search goes on without: OSError: the wall is gone",
        "what Breaks says failed, and the search goes on without: ValueError: paused",
    ]


@pytest.mark.parametrize("signal", [StopRequested(2), KeyboardInterrupt()])
def test_a_signal_in_the_middle_of_a_listener_is_heard(signal: BaseException) -> None:
    def interrupted() -> None:
        raise signal

    with pytest.raises(type(signal)):
        Dropped("it", interrupted)()
