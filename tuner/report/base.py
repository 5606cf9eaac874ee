"""Writes a base as text, before anything trains on it."""

from __future__ import annotations

from tuner.contract import BaseLook, Table
from tuner.report.lines import Line, clean, crop, labelled, line, pad, width_of


def base_report(look: BaseLook, width: int) -> list[Line]:
    """The text of a look at a base."""
    out: list[Line] = []
    for label, text in look.facts.items():
        out += labelled(label, clean(text), width, divided=True)
    for table in look.tables:
        out += [(), *_table(table, width)]
    for label, text in look.texts.items():
        rows = [row for part in text.expandtabs(4).split("\n") for row in _divided(part, max(13, width - 7))]
        out += [(), *(line((f"{label if at == 0 else '':<6} ", "head"), row) for at, row in enumerate(rows))]
    notes = [row for note in look.notes for row in labelled("note", clean(note), width, "warn")]
    return out + ([(), *notes] if notes else [])


def _table(table: Table, width: int) -> list[Line]:
    """The rows of a table, figures to the right, under its headings."""
    cells = [tuple(map(clean, row)) for row in (table.columns, *table.rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    out = []
    for at, row in enumerate(cells if table.rows else ()):
        shown = enumerate(zip(row, widths, strict=True))
        told = "  ".join(pad(cell, size, right=index > 0) for index, (cell, size) in shown)
        head = (f"{table.label if at == 0 else '':<6} ", "head")
        out.append(crop(line(head, (told, "head") if at == 0 else told), width))
    if table.below:
        out += labelled("" if table.rows else table.label, clean(table.below), width, "dim" if table.rows else "")
    return out


def _divided(text: str, width: int) -> list[str]:
    """A row of text in pieces of at most `width` cells, with all its blanks."""
    pieces, piece = [], ""
    for sign in text:
        if width_of(piece + sign) > width:
            pieces.append(piece)
            piece = ""
        piece += sign
    return [*pieces, piece]
