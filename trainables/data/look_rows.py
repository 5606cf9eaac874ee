"""The rows that a look is at: those that the preparation would learn from, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.data import reading, sampling, templates
from trainables.data.formats import Format
from trainables.data.messages import BadRow
from trainables.data.review import Shape, shape_of
from trainables.data.rows import Row, Rows
from trainables.data.shaping import Shaper, key_of
from trainables.settings import DataSettings
from tuner.contract import Finding, InputError, LookRequest

EXAMPLES = 3
"""Rows that are named for a finding."""


def validation(train: Rows, is_sampled: bool, data: DataSettings, request: LookRequest) -> tuple[Rows | None, int, str]:
    """The validation rows, how many there are, and which of them were read: those that the settings name, or those that
    the training rows' source has in a split of their own."""
    if data.validation is not None:
        reading.require_others(data)
        return sampling.read(data.validation, data, "data.validation_revision", request)
    given = None if is_sampled else reading.read_sets(data).validation
    return given, len(given.rows) if given is not None else 0, ""


def place(rows: Rows, index: int) -> str:
    """Where a row is in its file, without the file."""
    where, source = rows.where(index), rows.source
    if where.startswith(f"{source}:"):
        return f"line {where[len(source) + 1 :]}"
    return where[len(source) :].lstrip(", ") if where.startswith(source) else where


def kept(rows: Rows, fmt: Format, data: DataSettings, name: str) -> tuple[Rows, list[Finding]]:
    """The rows without those that the preparation leaves out, and a finding about these."""
    shaper, good, seen = Shaper(fmt, data), list[int](), set[int]()
    reasons: dict[str, list[str]] = {}
    for index, row in enumerate(rows.rows):
        reason = ""
        try:
            key = key_of(shaper.shape(row, rows.is_arrow(index)))
            if data.on_duplicate == "drop" and key in seen:
                reason = "that repeat another (data.on_duplicate)"
            seen.add(key)
        except BadRow as bad:
            if data.on_bad_row == "drop" or (data.on_bad_row == "drop_empty" and bad.kind == "empty"):
                reason = f"that cannot be learned: {bad.what}"
        if reason:
            reasons.setdefault(reason, []).append(place(rows, index))
        else:
            good.append(index)
    found = [
        Finding("left out", f"{reason} ({name})", len(places), tuple(places[:EXAMPLES]))
        for reason, places in reasons.items()
    ]
    return (rows.select(good) if found and good else rows), found if good else []


def unwritten(
    shaped: Mapping[int, Row], rows: Rows, fmt: Format, tokenizer: Any, place: str
) -> tuple[list[Finding], InputError | None]:
    """What the chat template does not write of the rows, and the refusal where that is the user's or the assistant's
    turns. shaped: the rows in TRL's format, by index."""
    if not fmt.conversational:
        return [], None
    shapes: dict[Shape, tuple[int, int]] = {}
    for index, row in shaped.items():
        shape = shape_of(row)
        count, first = shapes.get(shape, (0, index))
        shapes[shape] = (count + 1, first)
    try:
        lost = templates.unwritten(tokenizer, shapes, shaped.__getitem__, rows.where, place)
    except InputError as error:
        return [], error
    return [
        Finding(
            "told",
            f"of which {one.text}",
            one.count,
            (f"{one.where.removeprefix(rows.source).lstrip(':, ')}: {one.example}",),
        )
        for one in lost
    ], None
