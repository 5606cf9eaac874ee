"""The live view on a real (pseudo) terminal."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import threading
import time

import pytest

from tests.tuner.report import searches
from tuner.report.lines import line_width, plain
from tuner.report.live import LiveView, frame
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
            deadline = time.monotonic() + 10  # a busy machine draws less often
            while b"stopping" not in b"".join(seen) and time.monotonic() < deadline:
                time.sleep(0.05)
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


def test_a_note_is_whole_also_on_a_narrow_terminal() -> None:
    """Its end is often what matters: how to get the token, where the file lies."""
    url = "http://127.0.0.1:8265/#/jobs/01000000/with/a/long/path"
    text = f"the trials in the Ray dashboard: {url} (its token: ray get-auth-token)"
    record = SearchRecord.fold(searches.finished().events[:4])
    record.notes.append(text)
    for width in (80, 40, 28):
        rows = frame(record, width, 60, elapsed=1.0)
        assert all(line_width(row) <= width for row in rows)
        shown = "".join("".join(span for span, _ in row) for row in rows).replace(" ", "")
        assert text.replace(" ", "") in shown


def test_a_note_of_pages_leaves_room_for_the_trials() -> None:
    record = SearchRecord.fold(searches.many().events)
    record.notes.append("word " * 2000)
    rows = [plain([row]).rstrip() for row in frame(record, 80, 24, elapsed=1.0)]
    noted = [row for row in rows if "word word" in row]
    assert len(noted) == 3 and noted[-1].endswith("…") and len(rows) == 24


def test_a_clock_that_is_set_does_not_move_the_time_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    view = LiveView(stream=io.StringIO())
    for event in searches.many().events[:5]:
        view(event)
    view.picture(100, 24)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert _clock_of(view) == view._record.wall_s // 60


def test_a_picture_that_cannot_be_made_is_noted_and_the_view_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    master, slave, _, reader = _terminal()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    with stream, caplog.at_level(logging.WARNING), LiveView(stream=stream) as view:
        view._record.trials = None  # type: ignore[assignment]
        time.sleep(0.6)
    reader.join(timeout=2)
    os.close(master)
    assert len([r for r in caplog.records if "the live view cannot be drawn" in r.getMessage()]) == 1


def _clock_of(view: LiveView) -> float:
    """The elapsed time that the first row shows, in minutes."""
    found = re.search(r"(\d+):(\d\d)\b", plain(view.picture(100, 24)[:1]))
    assert found, plain(view.picture(100, 24)[:1])
    return int(found[1])
