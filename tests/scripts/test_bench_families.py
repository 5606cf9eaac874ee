"""A family trains by plain TRL, alone and packed, and comes out alike; its row is in the table."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    path = Path(__file__).resolve().parents[2] / "scripts" / "bench_families.py"
    spec = importlib.util.spec_from_file_location("bench_families", path)
    assert spec is not None and spec.loader is not None
    module, before = importlib.util.module_from_spec(spec), list(sys.path)
    sys.modules["bench_families"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


def test_a_family_is_as_it_should_be(bench: ModuleType, tmp_path: Path) -> None:
    kept = tmp_path / "rows.json"
    found = bench._all("llama", 1, kept)
    row = found.rows["llama"]
    assert row.fails == [] and row.trl == "trains"
    assert float(row.solo) == 0 and float(row.packed) <= 1e-5
    assert (row.names, row.merge) == ("the class's", "21 of 21")
    assert row.moves == "language: attention, mlp"
    assert bench.Found.read(kept) == found
    text = bench.document(found)
    assert "Of 1 families, 1 train, and 1 of these have the losses" in text and "Trials of 1 share a base." in text
    assert f"| {' | '.join(row.cells)} |" in text and "Not as they should be" not in text
    row.moves = "fails: 1 of 2 groups did not move: x"
    assert "Not as they should be: llama." in bench.document(found)


def test_what_is_not_as_it_should_be_is_told(bench: ModuleType) -> None:
    row = bench.Row("llama", trl="trains", solo="0", packed="2e-05", moves="fails: 1 of 2 groups did not move: x")
    assert row.fails == ["packed differs by 2e-05", "moves: fails: 1 of 2 groups did not move: x"]
    assert bench.Row("llama", trl="fails: x", solo="fails: x").fails == []
    assert bench.Row("llama", trl="trains", solo="fails: x").fails == ["solo fails: x"]


def test_the_document_has_every_family(bench: ModuleType) -> None:
    """It is made by the script, whose list of families it follows."""
    text = (bench.ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    told = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:]
    told += [line[2:].partition(":")[0] for line in text.splitlines() if line.startswith("- ") and "**" not in line]
    assert sorted(told) == sorted(bench.FAMILIES)
