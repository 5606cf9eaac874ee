"""Splits validation rows off the training rows, once a search, from a seed."""

from __future__ import annotations

import random

from trainables.data.reading import Rows
from trainables.settings import DataSettings
from tuner.contract import InputError


def split(train: Rows, validation: Rows | None, data: DataSettings) -> tuple[Rows, Rows]:
    """Training and validation rows: validation rows are split off if there are none, then both are drawn to their
    limits.

    Raises InputError where there are too few rows to split.
    """
    if validation is None:
        train, validation = _split_off(train, data)
    return _at_most(train, data.max_train_rows, data.seed + 1), _at_most(
        validation, data.max_validation_rows, data.seed + 2
    )


def _split_off(rows: Rows, data: DataSettings) -> tuple[Rows, Rows]:
    total = len(rows.rows)
    if total < 2:
        raise InputError(
            f"{total} row, and none of it can be split off for validation",
            where=rows.source,
            expected="at least 2 rows, or data.validation",
        )
    order = list(range(total))
    random.Random(data.seed).shuffle(order)  # noqa: S311  a split is no secret
    held_out = min(total - 1, max(1, round(total * data.validation_fraction)))
    return rows.select(sorted(order[held_out:])), rows.select(sorted(order[:held_out]))


def _at_most(rows: Rows, limit: int | None, seed: int) -> Rows:
    if limit is None or len(rows.rows) <= limit:
        return rows
    draw = random.Random(seed)  # noqa: S311  a split is no secret
    return rows.select(sorted(draw.sample(range(len(rows.rows)), limit)))
