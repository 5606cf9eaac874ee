"""The table of faults and the tests that `make chaos` runs know each other."""

from __future__ import annotations

import ast
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.faults import KNOWN

ROOT = Path(__file__).resolve().parents[2]


def test_every_fault_of_the_table_is_brought_about_by_make_chaos() -> None:
    """Else `make chaos` could never pass: it fails where a fault was not survived once."""
    said = set(_texts())
    patterns = [re.compile(text) for text in said if "{" in text]
    unnamed = {fault for fault in KNOWN - _signals() if re.escape(fault) not in said}
    assert [fault for fault in sorted(unnamed) if not any(pattern.fullmatch(fault) for pattern in patterns)] == []


def _signals() -> set[str]:
    """The faults that tests name by the signal that they send."""
    return {fault for fault in KNOWN if fault.split(",")[0] in signal.Signals.__members__}


def _files() -> Iterator[Path]:
    """Yields the test files that `make chaos` runs."""
    recipe = re.search(r"^CHAOS :=((?:.*\\\n)*.*\n)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    for place in (ROOT / word for word in recipe[1].split() if word.startswith("tests")):
        yield from place.rglob("*.py") if place.is_dir() else (place,)


def _texts() -> Iterator[str]:
    """Yields a pattern for each text in these files: what an f-string fills in may be any word or two."""
    for file in _files():
        if file.name == "faults.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [re.escape(p.value) if isinstance(p, ast.Constant) else r".{1,30}" for p in node.values]
                if any(isinstance(p, ast.Constant) and len(p.value.strip()) > 3 for p in node.values):
                    yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
                yield re.escape(node.value)
