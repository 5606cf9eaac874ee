"""Taking the demo's text from source files."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def make_demo() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "make_demo.py"
    spec = importlib.util.spec_from_file_location("make_demo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CASES = {
    "module": ('"""Doc."""\nx = 1\n', "x = 1\n"),
    "only": ('def f():\n    """Doc."""\n', "def f():\n    pass\n"),
    "lines": ('def f():\n    """Doc.\n\n    More.\n    """\n    return 1\n', "def f():\n    return 1\n"),
    "one line": ('def f(): "doc"; return 1\n', "def f(): return 1\n"),
    "after": ('class A:\n    x = 1\n    """About x."""\n', "class A:\n    x = 1\n"),
    "bytes": ('def f():\n    "ä"; return "ü"\n', 'def f():\n    return "ü"\n'),
    "used": ('def f():\n    return """kept"""\n', 'def f():\n    return """kept"""\n'),
    "comment": ('def f():\n    "doc"  # why\n    return 1\n', "def f():\n      # why\n    return 1\n"),
}


@pytest.mark.parametrize(("text", "bare"), CASES.values(), ids=CASES)
def test_docstrings_are_cut_out(make_demo: ModuleType, text: str, bare: str) -> None:
    assert make_demo.without_docstrings(text) == bare
    ast.parse(bare)


def test_a_row_is_source_and_first_paragraph(make_demo: ModuleType) -> None:
    text = (
        "class A:\n    @staticmethod\n    def f(a):\n"
        '        """Adds\n        one.\n\n        More.\n        """\n        return a + 1\n'
    )
    (row,) = make_demo.rows_of("a.py", text, make_demo.without_docstrings(text))
    assert row.prompt == '@staticmethod\ndef f(a):\n    return a + 1\n"""'
    assert row.completion == "Adds one."
    assert (row.module, row.name) == ("a.py", "f")


def test_functions_without_a_docstring_or_a_body_give_no_row(make_demo: ModuleType) -> None:
    text = 'def f():\n    return 1\n\ndef g():\n    """Doc."""\n'
    assert make_demo.rows_of("a.py", text, make_demo.without_docstrings(text)) == []


def test_retold_modules_are_one_family(make_demo: ModuleType) -> None:
    assert make_demo.family("_pydecimal.py") == make_demo.family("decimal.py")
    assert make_demo.family("json/decoder.py") == make_demo.family("json/encoder.py") == "json"
    assert make_demo.family("json/decoder.py") != make_demo.family("csv.py")


def test_foreign_notices_are_left_out(make_demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for name, text in {
        "plain.py": "x = 1\n",
        "foreign.py": "# Permission to use, copy, modify\nx = 1\n",
        "given.py": "# Licensed under the Apache License\n# Licensed to PSF under a Contributor Agreement\n",
        "test/test_x.py": "x = 1\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert [path for path, _ in make_demo.library_files(tmp_path)] == ["given.py", "plain.py"]


def test_copies_are_held_back(make_demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_demo, "HELD_OUT_ROWS", 1)

    def row(name: str, body: str, said: str) -> object:
        text = f'def {name}(self):\n    """{said}"""\n    {body}\n'
        return make_demo.rows_of("a.py", text, make_demo.without_docstrings(text))[0]

    seen = row("opened", "return self.stream.open(mode)", "Open the stream in that mode.")
    fresh = row("total", "return sum(part.size for part in parts)", "Add up how large all of it is.")
    renamed = row("reopened", "return self.stream.open(mode)", "Something else entirely.")
    retold = row("other", "return compute(everything, at, once)", "Open the stream, in that mode!")
    quoted = row("third", "return first, second, third, fourth", "Quoted in a comment.")
    kept = make_demo.hold_out(
        [renamed, retold, quoted, fresh], [seen], {seen.body}, "x = 1 Quoted in a comment. y = 2", 0
    )
    assert kept == [fresh]
