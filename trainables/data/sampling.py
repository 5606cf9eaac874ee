"""Draws a sample of rows, by which a large file can be looked at in seconds."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.data import reading
from trainables.data.rows import Rows
from trainables.settings import DataSettings
from tuner.contract import InputError, LookRequest

LARGE = 64 * 2**20
"""Bytes of a file of lines from which a share of its lines is read, and not all of them."""
ROWS = 2000
"""Rows of a sample: a share of them is known to 1.1 points (one standard error at 50%)."""
TEXT = 8 * 2**20
"""Characters of a sample of rows that are long: 3 to 10 s of one core."""
SHORT = 8
"""How much smaller all three are for `plan`."""


def is_drawn_from(source: str | tuple[str, ...], request: LookRequest) -> bool:
    """Whether a share of the lines of a source is read, and not all of them."""
    if request.whole or not isinstance(source, str):
        return False
    path = Path(source)
    return (
        path.suffix.lower() in (".jsonl", ".ndjson") and path.is_file() and path.stat().st_size >= LARGE // _by(request)
    )


def read(
    source: str | tuple[str, ...], data: DataSettings, setting: str, request: LookRequest
) -> tuple[Rows, int, str]:
    """The rows of a source, how many it has, and which of them were read, in words; "" for all. Raises InputError.

    setting: of the dataset's revision, as in `reading.read`.
    """
    if not is_drawn_from(source, request):
        rows = reading.read(source, data, setting)
        return rows, len(rows.rows), ""
    path = Path(str(source))
    with tempfile.NamedTemporaryFile("wb", suffix=path.suffix) as sample:
        total, taken = _sample_lines(path, sample, request)
        sample.flush()
        try:
            rows = reading.read(sample.name, data, setting)
        except InputError as error:
            raise InputError(error.what, where=error.where.replace(sample.name, str(path)), expected=error.expected,
                             remedy=error.remedy) from None  # fmt: skip
    part = replace(rows.parts[0], source=str(path))
    return (
        replace(rows, source=str(path), parts=(part,)),
        total,
        f"{taken:,} of {total:,} rows, drawn from the whole file",
    )


def draw(sizes: Mapping[int, int], request: LookRequest) -> list[int]:
    """Indices of at most ROWS rows with at most TEXT characters together, ascending; one row at least. sizes: the
    characters of each row, by index."""
    indices = list(sizes)
    rows, left = ROWS // _by(request), TEXT // _by(request)
    if len(indices) <= rows and sum(sizes.values()) <= left:
        return indices
    random.Random(0).shuffle(indices)  # noqa: S311  a sample is no secret
    taken = list[int]()
    for index in indices[:rows]:
        left -= sizes[index]
        if left < 0 and taken:
            break
        taken.append(index)
    return sorted(taken)


def _by(request: LookRequest) -> int:
    return SHORT if request.only_here else 1


def _sample_lines(path: Path, sample: Any, request: LookRequest) -> tuple[int, int]:
    """Writes a share of a file's lines, and an empty line for every other one, so that each keeps its number. Gives the
    number of rows in the file, and how many were written. The row that is asked for is written in any case."""
    size = path.stat().st_size
    chance = random.Random(0)  # noqa: S311  a sample is no secret
    total = taken = 0
    left = 2 * TEXT // _by(request)
    with path.open("rb") as file:
        head = [line for _, line in zip(range(100), file, strict=False)]
        mean = sum(map(len, head)) / len(head)
        share = min(1.0, min(2 * ROWS // _by(request), left / mean) * mean / size)
        file.seek(0)
        for number, line in enumerate(file, start=1):
            written = b"\n"
            if not line.isspace():
                total += 1
                if number in (1, request.row) or (chance.random() < share and len(line) <= left):
                    left -= len(line)
                    taken += 1
                    written = line
            sample.write(written)
    return total, taken
