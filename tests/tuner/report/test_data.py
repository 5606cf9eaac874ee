"""The text and the page of a look: what rows hold reaches neither a terminal nor a browser as anything but text."""

from __future__ import annotations

from io import StringIO

import pytest

from tuner.contract import AtLength, Bin, Finding, Look, Piece, RowSet, ShownRow
from tuner.report.data import data_report, short_notes, short_report, text_rows, visible
from tuner.report.data_page import page
from tuner.report.lines import for_stream, line_width, plain, to_rich, write

BAD = "\x1b[2J\x1b]0;t\x07\x9b31m\r\u202egpj.exe\u200f\x00 <script>alert(1)</script> & \"'"


def made(text: str) -> Look:
    pieces = (Piece(text, False), Piece("learned", True), Piece(text, True, beyond=True, hidden=4000, tail=text))
    row = ShownRow("line 7", 9000, 4321, pieces, "cut at 1,024 tokens")
    findings = (Finding("left out", "with no token to learn", 9, (f"line 3: {text}",), "mend it"),)
    at = (AtLength(512, 3, 1, 12), AtLength(1024, 1, 0, 4))
    lengths = {"shortest": 1, "median": 5, "90%": 9, "99%": 10, "longest": 9000}
    bins = (Bin(0, 9, 20), Bin(10, None, 1))
    found = RowSet("train", f"{text}.jsonl", 21, 21, 9200, 4400, 3, lengths, bins, at, findings, (row,))
    return Look({"format": text, "learns": "all"}, f"base{text}", 1024, "data.max_length", (found,), findings)


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for lines in (data_report(made("x" * 300 + " שלום 你好"), width), short_report(made("y"), width)):
        assert max(map(line_width, lines)) <= width


@pytest.mark.parametrize("width", [40, 100])
def test_nothing_that_steers_a_terminal_is_written(width: int) -> None:
    lines = data_report(made(BAD), width)
    stream = StringIO()
    write(lines, stream)
    assert all(c.isprintable() or c == "\n" for c in stream.getvalue())
    assert "\\x1b[2J" in "".join(stream.getvalue().split())
    assert "\x1b" not in to_rich(lines).plain
    assert all(c.isprintable() for note in short_notes(made(BAD)) for c in " ".join(note.split()))


def test_the_page_holds_rows_as_text_alone() -> None:
    written = page(made(BAD), note=BAD)
    assert "<script" not in written and "&lt;script&gt;" in written
    assert all(c.isprintable() or c == "\n" for c in written)
    assert "src=" not in written and "http" not in written.replace("http-equiv", "")
    assert "default-src 'none'" in written and "prefers-color-scheme: dark" in written
    assert written.count("<mark>") == written.count("</mark>") == 3, "two pieces and the legend"


def test_what_is_learned_has_a_mark_without_colours_too() -> None:
    said = plain(data_report(made("plain"), 100))
    assert "     ▌ learned\n" in said and "       plain\n" in said
    assert "--- cut here, at 1,024 tokens ---" in said and "… 4,000 tokens …" in said
    encoded = [for_stream(spans, _Ascii()) for spans in data_report(made("plain"), 100)]
    assert "     | learned\n" in plain(encoded) and plain(encoded).isascii()


class _Ascii(StringIO):
    encoding = "ascii"


def test_spaces_and_newlines_at_the_end_are_seen() -> None:
    assert text_rows("a  ", 20) == ["a␣␣"]
    assert text_rows("a\nb\n", 20) == ["a", "b↵"]
    assert text_rows("", 20) == [""]
    assert text_rows("你好你好", 5) == ["你好", "你好"]
    assert visible("a\tb\r") == "a→   b␍"
