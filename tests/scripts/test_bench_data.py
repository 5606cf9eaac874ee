"""The benchmark of a large file compares what it measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_data.py"


@pytest.mark.slow  # TRL's imports
def test_both_ways_make_the_same(tmp_path: Path) -> None:
    asked = ["--mb", "0.2", "--vocabulary", "600", "--max-length", "200", "--scratch", str(tmp_path), "--json"]
    done = subprocess.run([sys.executable, str(SCRIPT), *asked], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    rows = found["rows"]
    assert [(row["kind"], row["way"]) for row in rows] == [
        (kind, way) for kind in ("completion", "chat", "text") for way in ("tuner", "trl")
    ]
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        assert [ours[key] for key in ("rows", "tokens", "learned")] == [
            theirs[key] for key in ("rows", "tokens", "learned")
        ]
        assert ours["rows"] > 100 and 0 < ours["learned"] < ours["tokens"]
        assert theirs["peak_bytes"] > theirs["imported_bytes"] > ours["imported_bytes"] > 50e6
    assert "trl" in found["about"]["versions"] and not list(tmp_path.iterdir())
