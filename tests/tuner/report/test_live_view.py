"""The live view on a real (pseudo) terminal."""

from __future__ import annotations

import io
import os
import pty
import threading
import time

from tests.tuner.report import searches
from tuner.report.lines import plain
from tuner.report.live import LiveView
from tuner.results.records import SearchRecord


def _terminal() -> tuple[int, int, list[bytes], threading.Thread]:
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                seen.append(os.read(master, 65_536))
            except OSError:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return master, slave, seen, reader


def test_events_from_several_threads_end_in_one_picture() -> None:
    tape = searches.many()
    master, slave, seen, reader = _terminal()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        view = LiveView(searches.LABELS, stream=stream)
        with view:
            view(tape.events[0])
            starts = [e for e in tape.events if e.event == "started"]
            threads = [threading.Thread(target=lambda part=part: [view(e) for e in part]) for part in _thirds(starts)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(0.6)  # two redraws
            view.say("stopping")
            time.sleep(0.4)
        picture = view.picture(100, 60)
    reader.join(timeout=2)
    os.close(master)
    text = b"".join(seen).decode()
    assert "0 of 40 trials" in text
    assert "stopping" in text
    assert sum("starting" in "".join(t for t, _ in row) for row in picture) == 40


def test_the_bar_never_goes_back() -> None:
    tape = searches.many()
    view = LiveView(stream=io.StringIO())
    shares = []
    for event in tape.events:
        view(event)
        view.picture(100, 24, now=event.time)
        shares.append(view._least_share)
    assert shares == sorted(shares)


def test_a_resumed_search_begins_with_what_was_there() -> None:
    tape = searches.resumed()
    opening = next(i for i, e in enumerate(tape.events) if i and e.event == "search")
    view = LiveView(stream=io.StringIO(), record=SearchRecord.fold(tape.events[:opening]))
    for event in tape.events[opening : opening + 4]:
        view(event)
    text = plain(view.picture(100, 24, now=tape.events[opening + 3].time))
    assert "3 of 5 trials" in text
    assert "100%" not in text
    assert "trial 1: 4.312, 11.5% below the recipe's 4.874" in text


def _thirds(events: list[searches.Event]) -> list[list[searches.Event]]:
    return [events[i::3] for i in range(3)]
