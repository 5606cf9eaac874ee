"""Compares text with files in tests/golden. `TUNER_UPDATE_GOLDEN=1` writes them again; read the difference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "golden"


def check(name: str, parts: Mapping[str, str]) -> None:
    """Compares texts, each under its heading, with the golden file called `name`."""
    text = "\n".join(f"=== {heading} ===\n{part}" for heading, part in parts.items())
    path = FOLDER / name
    if os.environ.get("TUNER_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
