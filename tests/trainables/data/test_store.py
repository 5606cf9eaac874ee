"""Rows that are written while they are tokenized, and the fingerprint of them."""

from __future__ import annotations

import hashlib
import random
from array import array
from pathlib import Path

import pytest

from trainables.data import store, tokens
from trainables.data.tokens import IGNORED, Tokens
from tuner.contract import Preparation


def some_rows(number: int) -> list[tuple[list[int], list[int]]]:
    draw = random.Random(0)
    rows = []
    for _ in range(number):
        ids = [draw.randrange(1000) for _ in range(draw.randint(1, 30))]
        begin = draw.randint(0, len(ids) - 1)
        rows.append((ids, [IGNORED] * begin + ids[begin:]))
    return rows


@pytest.mark.parametrize("held", [1, 100, 1 << 20])
def test_what_is_handed_over_in_parts_is_what_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(tokens, "_HELD", held)
    rows = some_rows(2500)
    whole, most = Tokens(), [0]
    with store.Draft(tmp_path / "0123") as draft:
        write = draft.writer("train")

        def full(some: Tokens) -> None:
            most[0] = max(most[0], len(some.input_ids))
            write(some)

        parts = Tokens(full=full)
        for ids, labels in rows:
            whole.add(ids, labels, 20)
            parts.add(ids, labels, 20)
        parts.hand_over()
        assert not parts.input_ids and most[0] < held + 20
        flat = b"".join(bytes(values) for values in (whole.input_ids, whole.labels, whole.ends))
        assert draft.fingerprint("train") == hashlib.sha256(flat).hexdigest()[:16]
        draft.finish(Preparation(str(tmp_path / "0123")))
    found = store.find(tmp_path / "0123")
    assert found is not None
    read = store.open_set(found, "train")
    assert [row[:20] for row, labels in rows if any(label != IGNORED for label in labels[:20])] == read["input_ids"][:]
    assert array("i", (label for row in read["labels"] for label in row)) == whole.labels
    counted = ("rows", "tokens", "label_tokens", "highest", "longest_kept", "dropped", "truncated", "longest")
    assert [getattr(parts, name) for name in counted] == [getattr(whole, name) for name in counted]
    assert whole.rows == len(whole.ends) and whole.highest == max(whole.input_ids)


def test_what_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.Draft(tmp_path / "0123") as draft:
        draft.writer("train")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
