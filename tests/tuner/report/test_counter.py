"""A counter: redrawn on a terminal, a few lines in a log."""

from __future__ import annotations

import io
import os

import pytest

from tests.tuner.report.test_live_view import _terminal
from tuner.report import counter
from tuner.report.counter import Counter, Paced
from tuner.report.live import LiveView
from tuner.report.plain import PlainView


@pytest.mark.parametrize(("seconds", "lines"), [(9, 0), (10, 1), (39, 2), (60, 3), (3600, 9), (86_400, 14)])
def test_a_log_has_few_lines_however_long_it_takes(seconds: int, lines: int) -> None:
    paced = Paced()
    assert sum(paced.is_due(100.0 + tenth / 10) for tenth in range(10 * seconds + 1)) == lines


def test_a_pause_costs_no_lines() -> None:
    paced = Paced()
    assert [paced.is_due(now) for now in (0.0, 1000.0, 1001.0, 1279.0, 1280.0)] == [False, True, False, False, True]


def test_lines_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counter, "FIRST_S", 1e-9)
    for make in (Counter, lambda stream: PlainView(stream=stream).count):
        stream = io.StringIO()
        shown = make(stream)
        for done in range(1000):
            shown(f"tokenizing: {done:,} of 1,000\x1b[2J")
        first, *more = stream.getvalue().splitlines()
        assert first.startswith("tokenizing: ") and first.endswith(" of 1,000 [2J") and len(more) < 40
        assert "\x1b" not in stream.getvalue()


def test_one_line_of_a_terminal_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    master, slave, seen, reader = _terminal()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        with Counter(stream) as shown:
            for done in range(1000):
                shown(f"tokenizing: {done:,} of 1,000 rows\x1b[2J")
        stream.flush()
    reader.join(timeout=2)
    os.close(master)
    text = b"".join(seen).decode()
    assert text.startswith("\rtokenizing: ") and text.endswith("\r\x1b[K") and "\n" not in text
    drawn = [part.removesuffix("\x1b[K") for part in text.split("\r")[1:-1]]
    assert 1 <= len(drawn) < 20 and all(len(part) <= 19 for part in drawn) and "[2J" not in text


def test_the_live_view_has_it_until_it_is_done() -> None:
    view = LiveView(stream=io.StringIO())
    view.count("tokenizing the train rows: 12,000 of 286,200")
    picture = "".join(text for row in view.picture(100, 20) for text, _ in row)
    assert "tokenizing the train rows: 12,000 of 286,200" in picture
    view.count("")
    picture = "".join(text for row in view.picture(100, 20) for text, _ in row)
    assert "preparing the base and the data" in picture
