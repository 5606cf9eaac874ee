"""Tells whether an error comes from a disk that is full, failing or gone, or from something else, such as a bug.

The driver and its workers all classify errors here. The error number decides where only a disk can cause it
(`Input/output error`). Where it can have other causes (`Permission denied`), or a library gives no number, the folder
is tried: whether it exists and takes a file.

`replace_file` writes a file that others may be reading meanwhile.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.contract import Reason, Verdict

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space left, or a quota is used up: waiting helps, until there is room."""

FAILING = frozenset({
    errno.EIO, errno.EROFS, errno.ESTALE, errno.EUCLEAN, errno.EREMOTEIO, errno.ENOLCK, errno.EFBIG,
    errno.EMFILE, errno.ENFILE,
})  # fmt: skip
"""Errors that only a disk, or a limit of the process (its open files, a file's size), causes: nothing can be
written."""

_NUMBER = re.compile(r"(?:\[errno|\bos error) (\d{1,3})\b", re.IGNORECASE)
"""An error number in the text of an error: copytree and PyArrow collect errors as text, safetensors raises its own."""

_NO_ROOM, _FAILING = "no room on the disk", "the disk fails"


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a disk."""

    number: int
    """The system's error number."""
    path: str = ""
    """The file or folder that the error names; "" where it names none."""

    @property
    def is_full(self) -> bool:
        """Whether only room is missing."""
        return self.number in FULL

    @property
    def told(self) -> str:
        """The system's text and the path: "Input/output error: runs/x/trials.jsonl"."""
        word = os.strerror(self.number)
        return f"{word}: {self.path}" if self.path else word

    @property
    def verdict(self) -> Verdict:
        """The verdict on a trial that failed for it: infrastructure, so that the trial is tried again."""
        if self.is_full:
            return Verdict(
                Reason.INFRASTRUCTURE, f"{_NO_ROOM} ({self.told})", "make room on the disk of the run folder"
            )
        remedy = "look after the disk of the run folder"
        return Verdict(Reason.INFRASTRUCTURE, f"{_FAILING} ({self.told})", remedy)


def is_of_disk(verdict: Verdict) -> bool:
    """Whether a verdict was made by `Trouble.verdict`."""
    return verdict.reason is Reason.INFRASTRUCTURE and verdict.message.startswith((_NO_ROOM, _FAILING))


def trouble_of(error: BaseException | None, folder: Path | None = None) -> Trouble | None:
    """What is wrong with a disk where that caused `error` or one in its chain; None where the disk is not the cause.

    folder: where the code that raised it keeps its files. It is tried where the errors alone do not decide.
    """
    denial: Trouble | None = None
    for one in _chain(error):
        found = _as_told(one)
        if found is None:
            continue
        if found.number in FULL | FAILING:
            return found
        denied = found.number in (errno.EACCES, errno.EPERM)
        if denied and folder is not None and found.path and Path(found.path).is_relative_to(folder):
            denial = denial or found
    if error is None or folder is None:
        return None
    return ask(folder) or denial


def is_full(error: BaseException | None) -> bool:
    """Whether a disk without room caused an error or one in its chain."""
    return any((found := _as_told(one)) is not None and found.is_full for one in _chain(error))


def ask(folder: Path) -> Trouble | None:
    """Tries a folder by writing a file into it; returns what is wrong with it, None where nothing is."""
    place = folder / f".asked-{secrets.token_hex(4)}"
    try:
        made = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(made, b"?" * 512)
        finally:
            with suppress(OSError):
                place.unlink()
            os.close(made)
    except OSError as error:
        return Trouble(error.errno or errno.EIO, str(folder))
    return None


def replace_file(place: Path, text: str, mode: int = 0o666) -> None:
    """Writes a file beside `place` under a random name, and renames it to `place`: a reader has the old file or the new
    one, and never half of one. Raises OSError, and removes the new file then."""
    beside = place.with_name(f"{secrets.token_hex(16)}.new")
    try:
        made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(made, "w", encoding="utf-8") as file:
            file.write(text)
        beside.replace(place)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _as_told(error: BaseException) -> Trouble | None:
    """The error number and the path that an error has, or that stand in its text; None where it has no number."""
    if isinstance(error, OSError) and error.errno is not None:
        return Trouble(error.errno, os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "")
    numbers = [int(number) for number in _NUMBER.findall(str(error)[:100_000])]
    known = next((number for number in numbers if number in FULL | FAILING), None)
    return Trouble(known) if known is not None else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and the errors that led to it (`__cause__`, `__context__`)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
