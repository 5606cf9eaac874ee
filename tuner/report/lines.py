"""Styled lines: data that is written as plain text or in colour.

A line is a tuple of spans, a span is (text, style). Tables and summaries are made as lines, so that tests read them as
text, a terminal shows them in colour, and rich is imported only to write to a terminal.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

Span = tuple[str, str]
"""A text and its style, a key of STYLES."""
Line = tuple[Span, ...]
"""One row of text."""

STYLES = {
    "": "",
    "dim": "dim",
    "head": "bold dim",
    "strong": "bold",
    "good": "color(28)",
    "best": "bold color(28)",
    "warn": "color(130)",
    "bad": "color(160)",
    "run": "color(31)",
    "bar": "color(31)",
    "rest": "color(244)",
    "code": "color(31)",
}
"""All styles, each with its rich style. The colours are of medium brightness, from the 256 that are the same in every
theme: a theme's yellow and cyan cannot be read on white. Where a terminal has sixteen, rich takes the nearest."""

_ASCII = str.maketrans(
    {"·": "-", "…": "~", "●": "o", "━": "=", "─": "-", "╸": "-", "│": "|", "┤": "+", "└": "+"}
    | {"┬": "+", "▸": ">", "≤": "<", "▌": "|", "↵": "$", "␣": "_"}
    | dict(zip("▁▂▃▄▅▆▇█", "_.,-=+*#", strict=True))
)


def line(*spans: Span | str) -> Line:
    """A line from spans; a bare string is a span without style."""
    return tuple((span, "") if isinstance(span, str) else span for span in spans)


def plain(lines: Iterable[Line]) -> str:
    """The text without styles, one row a line, without trailing spaces."""
    return "".join("".join(text for text, _ in spans).rstrip() + "\n" for spans in lines)


def width_of(text: str) -> int:
    """The terminal cells that a text takes; East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def line_width(spans: Line) -> int:
    """The terminal cells that a line takes."""
    return sum(width_of(text) for text, _ in spans)


def clean(text: str) -> str:
    """The text as one row of printable characters: text that others wrote may hold newlines and escape codes."""
    return _printable(" ".join(text.split()))


def shorten(text: str, width: int) -> str:
    """The text cut to `width` cells; the last one is "…" if something was cut."""
    if width_of(text) <= width:
        return text
    if width <= 0:
        return ""
    kept, used = [], 0
    for c in text:
        used += width_of(c)
        if used > width - 1:
            break
        kept.append(c)
    return "".join(kept).rstrip(" ,(") + "…"


def pad(text: str, width: int, right: bool = False) -> str:
    """The text filled with spaces to `width` cells, or cut to them. right: the spaces go before it."""
    text = shorten(text, width)
    space = " " * (width - width_of(text))
    return space + text if right else text + space


def crop(spans: Line, width: int) -> Line:
    """A line cut to `width` cells, so that a terminal never wraps it."""
    if line_width(spans) <= width:
        return spans
    kept: list[Span] = []
    left = width
    for text, style in spans:
        if width_of(text) >= left:
            cut = shorten(text, left) if width_of(text) > left else shorten(text + "…", left)
            return (*kept, (cut, style))
        kept.append((text, style))
        left -= width_of(text)
    return tuple(kept)


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """The words in rows of at most `width` cells, rows after the first indented. Long words are not divided."""
    rows, row = [], ""
    for word in text.split():
        if row and width_of(row) + 1 + width_of(word) > width:
            rows.append(row)
            row = indent + word
        else:
            row = f"{row} {word}" if row.strip() else row + word
    return [*rows, row] if row else rows


def folded(text: str, width: int) -> list[str]:
    """Like `wrap`, but words wider than a row are divided: for where a row that is too wide would be cut off."""
    rows = []
    for row in wrap(text, width):
        while width_of(row) > width:
            kept = next(n for n in range(len(row), 0, -1) if width_of(row[:n]) <= width or n == 1)
            rows.append(row[:kept])
            row = row[kept:]
        rows.append(row)
    return rows


def title(name: str) -> Span:
    """The name at the beginning of a text, as wide as the left margin of `labelled`."""
    return f"{shorten(name, 32):<5}  ", "strong"


def labelled(label: str, text: str | Line, width: int, style: str = "", *, divided: bool = False) -> list[Line]:
    """A paragraph with a label in the left margin ("best   trial 9: ..."). A string is wrapped, a line is kept.

    divided: words that are wider than a row are divided (`folded`).
    """
    head: Span = (f"{label:<6} ", "head")
    if not isinstance(text, str):
        return [(head, *text)]
    rows = (folded if divided else wrap)(text, max(13 if divided else 20, width - 7)) or [""]
    return [line(head, (rows[0], style)), *(line(" " * 7, (row, style)) for row in rows[1:])]


def to_rich(lines: Sequence[Line]) -> Text:
    """The lines as one rich text, which is not wrapped and whose brackets are not markup."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop", end="")
    for index, spans in enumerate(lines):
        if index:
            text.append("\n")
        for span, style in spans:
            text.append(span, STYLES[style])
    return text


def terminal_width(stream: IO[str], default: int = 100) -> int:
    """Columns of the terminal behind a stream: COLUMNS if it is set, `default` if there is no terminal."""
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    if columns > 0:
        return columns
    try:
        return os.get_terminal_size(stream.fileno()).columns or default
    except (OSError, ValueError, AttributeError):
        return default


def write(lines: Sequence[Line], stream: IO[str] | None = None) -> None:
    """Writes lines to a stream (standard error by default): coloured on a terminal, plain text elsewhere."""
    stream = stream or sys.stderr
    if stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
        from rich.console import Console

        console = Console(file=stream, highlight=False, soft_wrap=True)
        console.print(to_rich([for_stream(spans, stream) for spans in lines]))
        return
    stream.write(plain(for_stream(spans, stream) for spans in lines))
    stream.flush()


def for_stream(spans: Line, stream: IO[str]) -> Line:
    """The line in characters that the stream can write; all text goes through this before it is written.

    A character that is not printable becomes a space, whoever wrote it: an escape code would colour, clear or answer
    for the terminal, and a mark of direction would reverse text. Blocks and dots become ASCII if the encoding lacks
    them.
    """
    spans = tuple((text if text.isprintable() else _printable(text), style) for text, style in spans)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if encoding.lower().replace("-", "") == "utf8":
        return spans
    text = "".join(text for text, _ in spans)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return tuple((text.translate(_ASCII).encode("ascii", "replace").decode(), style) for text, style in spans)
    return spans


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
