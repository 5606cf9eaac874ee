"""Tells what went wrong in a user's own Python in the user's terms: the file, the line, the last frames of their
code."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from tuner.contract import Fault, InputError
from tuner.error_text import named_line, shown_path

FRAMES = 3
"""How many of the user's frames are shown: the innermost ones."""


@dataclass(frozen=True)
class Trouble:
    """What went wrong in a user's code."""

    what: str
    """The end of a sentence: "raised NameError: ..."."""
    where: str = ""
    """`file:line`; "" where no line of the user's is known."""
    frames: tuple[str, ...] = ()
    """The user's innermost frames with their source lines, the outermost of them first."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> Trouble:
        """Reads what `to_dict` returned."""
        return cls(str(value["what"]), str(value["where"]), tuple(map(str, value["frames"])))

    def error(self, subject: str, *, where: str, expected: str, remedy: str) -> InputError:
        """The error for the user. subject: the code that failed. where: the place that names the code, shown where no
        line of it is known."""
        lines = [f"{subject} {self.what}", *(f"  {frame}" for frame in self.frames)]
        return InputError("\n  ".join(lines), where=self.where or where, expected=expected, remedy=remedy)


def of_error(error: BaseException, wrote: Callable[[str], bool]) -> Trouble:
    """What went wrong where a user's code raised `error`. wrote: whether a file is the user's."""
    what = f"raised {named_line(error)}"
    if isinstance(error, SystemExit):
        what = f"called sys.exit({error.code!r})"
    if isinstance(error, SyntaxError) and error.filename and wrote(error.filename):
        text = (error.text or "").strip()
        frames = (f"{shown_path(error.filename)}:{error.lineno}: {text}",) if text else ()
        return Trouble(f"cannot be read as Python: {error.msg}", f"{shown_path(error.filename)}:{error.lineno}", frames)
    # A RecursionError has a thousand frames, and linecache reads a file once
    lines = [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(error.__traceback__) if wrote(f.filename)]
    return _at(what, lines)


def of_stack(what: str, frame: FrameType | None, wrote: Callable[[str], bool]) -> Trouble:
    """What went wrong where a user's code still runs, such as one that hangs. what: in words. frame: its innermost
    frame."""
    stack = reversed([f for f, _ in traceback.walk_stack(frame)]) if frame is not None else ()
    lines = [(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in stack if wrote(f.f_code.co_filename)]
    return _at(what, lines)


@contextmanager
def theirs(subject: str, wrote: Callable[[str], bool], *, where: str, expected: str, remedy: str) -> Iterator[None]:
    """Turns what a user's code raises in this block into an InputError, `sys.exit` included.

    An InputError and a Fault pass unchanged, because they are worded for the user already; so does an error without a
    frame of the user's, because it is a fault of ours.
    """
    try:
        yield
    except (InputError, Fault):
        raise
    except (Exception, SystemExit) as error:
        trouble = of_error(error, wrote)
        if not trouble.where:
            raise
        raise trouble.error(subject, where=where, expected=expected, remedy=remedy) from error


def _at(what: str, lines: list[tuple[str, int | None, str]]) -> Trouble:
    if not lines:
        return Trouble(what)
    shown = [
        f"{shown_path(file)}:{number}, in {name}: {linecache.getline(file, number or 0).strip()}"
        for file, number, name in lines[-FRAMES:]
    ]
    return Trouble(what, f"{shown_path(lines[-1][0])}:{lines[-1][1]}", tuple(shown))
