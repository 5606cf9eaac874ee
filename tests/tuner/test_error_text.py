"""The line that an exception is shown as, and the name that was probably meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.error_text import all_near, first_line, last_line, named_line, nearest, shown_path


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it says nothing")


@pytest.mark.parametrize(
    ("error", "first", "last", "named"),
    [
        (ValueError("\n  one \n\n two\n"), "one", "two", "ValueError: one"),
        (ValueError(""), "ValueError", "ValueError", "ValueError"),
        (ValueError(" \n "), "ValueError", "ValueError", "ValueError"),
        (OSError(28, "No space left"), "[Errno 28] No space left", "[Errno 28] No space left", None),
    ],
)
def test_a_line_of_an_exception(error: Exception, first: str, last: str, named: str | None) -> None:
    assert (first_line(error), last_line(error)) == (first, last)
    assert named_line(error) == (named or f"OSError: {first}")


def test_a_long_line_is_cut() -> None:
    assert first_line(ValueError("x" * 500)) == "x" * 300 and last_line("y" * 500, most=7) == "y" * 7
    assert named_line(ValueError("x" * 500), most=20) == "ValueError: " + "x" * 8


def test_an_exception_that_cannot_be_put_into_words_has_its_name() -> None:
    assert named_line(Silent()) == "Silent"


def test_the_name_that_was_meant() -> None:
    assert nearest("Leaning_rate", ["learning_rate", "lora_r"]) == "learning_rate"
    assert nearest("qqq", ["learning_rate", "lora_r"]) is None
    assert all_near("run-1", ["run-2", "run-12", "other"], most=3) == ["run-12", "run-2"]


def test_a_path_is_relative_where_it_lies_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert shown_path(folder / "a" / "b.py") == "a/b.py" and shown_path("a") == "a"
    assert shown_path(folder / "..runs") == "..runs", "its name begins with two dots, and it lies below"
    assert shown_path(tmp_path / "x") == shown_path("../x") == str(tmp_path / "x")
    folder.rmdir()
    assert shown_path("a") == os.fspath("a"), "the working folder is gone"
