"""Lines of a job's log. Searches on a real cluster are in tests/integration/test_submit.py."""

from __future__ import annotations

from tuner.cluster.searches import event_of
from tuner.results.ledger import Event, Kind


def test_events_among_the_lines_of_a_log() -> None:
    event = Event(Kind.NOTE, 1.0, details={"text": "a"})
    assert event_of(event.to_json()) == event
    for line in (
        "",
        "starting",
        '{"event":"note"',
        '{"event":"unheard of","time":1}',
        '{"other":1}',
        event.to_json()[:-4],
    ):
        assert event_of(line) is None, line
