"""The rows that a look is at: those that the preparation would learn from, and what it leaves out."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any

from trainables.data import reading, sampling, templates
from trainables.data.counted import EXAMPLES, Repeats
from trainables.data.findings import counting
from trainables.data.formats import Format
from trainables.data.messages import BadRow
from trainables.data.review import Turns
from trainables.data.rows import Row, Rows
from trainables.data.shaping import Shaper, key_of
from trainables.settings import DataSettings
from tuner.contract import Finding, InputError, LookRequest, Tell

Read = tuple[Rows | None, int, str]
"""Rows, how many there are, and which of them were read, in words; "" for all."""


def read(data: DataSettings, request: LookRequest) -> tuple[tuple[Rows, int, str], Read]:
    """The training rows, and the validation rows that the settings name, or that the training rows' source has in a
    split of their own. Raises InputError."""
    request.tell("reading the rows")
    if data.validation is not None:
        train = sampling.read(data.train, data, "data.revision", request)
        reading.require_others(data)
        return train, sampling.read(data.validation, data, "data.validation_revision", request)
    if sampling.is_drawn_from(data.train, request):
        return sampling.read(data.train, data, "data.revision", request), (None, 0, "")
    sets = reading.read_sets(data)
    given = sets.validation
    return (sets.train, len(sets.train.rows), ""), (given, len(given.rows) if given is not None else 0, "")


def place(rows: Rows, index: int) -> str:
    """Where a row is in its file, without the file."""
    where, source = rows.where(index), rows.source
    if where.startswith(f"{source}:"):
        return f"line {where[len(source) + 1 :]}"
    return where[len(source) :].lstrip(", ") if where.startswith(source) else where


def kept(rows: Rows, fmt: Format, data: DataSettings, name: str, tell: Tell) -> tuple[Rows, list[Finding]]:
    """The rows without those that the preparation leaves out, and a finding about these."""
    shaper, good, repeats = Shaper(fmt, data), array("q"), Repeats()
    reasons: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    count = counting(tell, f"reading the {name} rows", len(rows))
    for index, row in enumerate(rows.rows):
        count(index)
        reason = ""
        try:
            key = key_of(shaper.shape(row, rows.is_arrow(index)))
            if repeats.add(key, index) and data.on_duplicate == "drop":
                reason = "that repeat another (data.on_duplicate)"
        except BadRow as bad:
            if data.on_bad_row == "drop" or (data.on_bad_row == "drop_empty" and bad.kind == "empty"):
                reason = f"that cannot be learned: {bad.what}"
        if reason:
            counts[reason] += 1
            if len(places := reasons.setdefault(reason, [])) < EXAMPLES:
                places.append(place(rows, index))
        else:
            good.append(index)
    found = [
        Finding("left out", f"{reason} ({name})", counts[reason], tuple(places)) for reason, places in reasons.items()
    ]
    return (rows.select(good) if found and good else rows), found if good else []


def unwritten(
    shaped: Mapping[int, Row], turns: Turns, rows: Rows, tokenizer: Any, place: str
) -> tuple[list[Finding], InputError | None]:
    """What the chat template does not write of the rows, and the refusal where that is the user's or the assistant's
    turns. shaped: the rows in TRL's format, by index. turns: what theirs have; nothing where they are no
    conversations."""
    try:
        lost = templates.unwritten(tokenizer, turns, shaped.__getitem__, rows.where, place)
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
