"""What holds for every source file."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tuner", "trainables", "scripts", "tests")
LONG = 400
"""Lines of a file at most. A longer one has more than one reason to change, or says in its docstring why it is so
long."""


def test_a_long_file_says_why() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    texts = {file.relative_to(ROOT): file.read_text("utf-8") for file in files}
    long = {file: text for file, text in texts.items() if len(text.splitlines()) > LONG}
    assert len(texts) > 300
    silent = [str(f) for f, text in long.items() if f"More than {LONG} lines, because" not in _docstring(text)]
    assert silent == []


def _docstring(text: str) -> str:
    return ast.get_docstring(ast.parse(text)) or ""
