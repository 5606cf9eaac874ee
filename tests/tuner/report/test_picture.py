"""The script that makes the README's picture from a ledger."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

from tests.tuner.report import searches

ROOT = Path(__file__).parents[3]


def test_a_recorded_search_becomes_an_svg_that_loads_nothing(tmp_path: Path) -> None:
    run = tmp_path / "first"
    run.mkdir()
    (run / "trials.jsonl").write_text("".join(e.to_json() + "\n" for e in searches.running().events), encoding="utf-8")
    svg = tmp_path / "live.svg"
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_picture.py"), str(run), str(svg), "--at", "1"],
        check=True,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
    )
    text = svg.read_text(encoding="utf-8")
    xml.etree.ElementTree.fromstring(text)
    assert "trial&#160;1:&#160;4.312" in text
    assert "url(" not in text.replace("url(#", "")
