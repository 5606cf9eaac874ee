"""What the file of a state can hold."""

from __future__ import annotations

from pathlib import Path

import torch

from trainables import states


def test_a_tensor_that_is_there_twice_and_parts_of_one(tmp_path: Path) -> None:
    """bitsandbytes hands the tables of its 8-bit moments to all parameters; a slot's parts are views of one row."""
    table, row = torch.randn(256), torch.randn(30)
    values = {
        "first": {"qmap": table, "parts": (row[:12].view(3, 4), row[12:].view(6, 3)[:, :2])},
        "second": {"qmap": table, "whole": row},
    }
    place = states.save(tmp_path, values)
    found = states.load(place)
    assert found["first"]["qmap"].equal(table) and found["second"]["qmap"].equal(table)
    assert all(
        mine.equal(theirs) for mine, theirs in zip(found["first"]["parts"], values["first"]["parts"], strict=True)
    )
    assert found["second"]["whole"].equal(row)
