"""The maps are true: of every package in its docstring, and of the tests in the documents."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(
    init.parent for top in ("tuner", "trainables") for init in (ROOT / top).rglob("__init__.py") if init.stat().st_size
)
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
_TEST_FILE = r"(?:[\w/]+/)?test_\w+\.py"


def named_in(package: Path) -> str:
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_packages_docstring_names_every_file_of_it(package: Path) -> None:
    modules = {p.stem for p in package.glob("*.py") if not p.stem.startswith("__")}
    folders = {p.parent.name for p in package.glob("*/__init__.py")}
    text = named_in(package)
    words = set(re.findall(r"[\w]+", text))
    assert sorted((modules | folders) - words) == [], "not on the map"
    dead = {name for name in re.findall(r"^(\w+)(?:\.py|/)", text, re.MULTILINE) if not _is_there(package, name)}
    assert not dead, "on the map and not there"


def _is_there(package: Path, name: str) -> bool:
    return (package / f"{name}.py").exists() or (package / name).is_dir()


def test_every_test_that_a_document_names_is_in_the_tree() -> None:
    """`path::test`, and `::test` of the last path before it; `tests/` is left out of the paths."""
    dead, seen = [], 0
    for document in DOCUMENTS:
        file = ""
        for path, test in re.findall(rf"`(?:tests/)?({_TEST_FILE})?(?:::(\w+))?`", document.read_text("utf-8")):
            if not path and not test:
                continue
            file, seen = path or file, seen + 1
            place = ROOT / "tests" / file
            if not place.is_file() or (test and f"def {test}(" not in place.read_text("utf-8")):
                dead.append(f"{document.name}: {file}::{test}")
    assert dead == []
    assert seen > 100
