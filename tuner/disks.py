"""What an error says of a disk: it is full, it is gone or failing, or the error is none of the disk's (a bug, say).

The one classification, for the driver and for its workers. An error number decides where only a disk can have given it
(`Input/output error`). Where it may be anybody's (`Permission denied`, or a library that tells no number at all), the
folder itself is asked: it is there and takes a file, or it is not.

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
"""No space left, and a quota that is used up: a matter of waiting until there is room."""

FAILING = frozenset({
    errno.EIO, errno.EROFS, errno.ESTALE, errno.EUCLEAN, errno.EREMOTEIO, errno.ENOLCK, errno.EFBIG,
    errno.EMFILE, errno.ENFILE,
})  # fmt: skip
"""Nobody's but the disk's, or the limits' of the process: what was to be written cannot be."""

_NUMBER = re.compile(r"(?:\[errno|\bos error) (\d{1,3})\b", re.IGNORECASE)
"""As copytree and PyArrow, which gather errors as text, and safetensors, which is no Python, tell it."""

_NO_ROOM, _FAILING = "no room on the disk", "the disk fails"


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a disk. number: the system's. path: what it was said of, "" where nobody told."""

    number: int
    path: str = ""

    @property
    def is_full(self) -> bool:
        return self.number in FULL

    @property
    def told(self) -> str:
        """The system's word, and what it is about: "Input/output error: runs/x/trials.jsonl"."""
        word = os.strerror(self.number)
        return f"{word}: {self.path}" if self.path else word

    @property
    def verdict(self) -> Verdict:
        """The end of a trial that met it. It says nothing about the trial, which is tried again."""
        if self.is_full:
            return Verdict(
                Reason.INFRASTRUCTURE, f"{_NO_ROOM} ({self.told})", "make room on the disk of the run folder"
            )
        remedy = "look after the disk of the run folder"
        return Verdict(Reason.INFRASTRUCTURE, f"{_FAILING} ({self.told})", remedy)


def is_of_disk(verdict: Verdict) -> bool:
    """Whether a verdict is one of `Trouble`'s."""
    return verdict.reason is Reason.INFRASTRUCTURE and verdict.message.startswith((_NO_ROOM, _FAILING))


def trouble_of(error: BaseException | None, folder: Path | None = None) -> Trouble | None:
    """What an error, or one that it was raised for, says of a disk; None where it is none of the disk's.

    folder: where its writer keeps its files. It is asked where the error alone does not tell.
    """
    soft: Trouble | None = None
    for one in _chain(error):
        found = _as_told(one)
        if found is None:
            continue
        if found.number in FULL | FAILING:
            return found
        denied = found.number in (errno.EACCES, errno.EPERM)
        if denied and folder is not None and found.path and Path(found.path).is_relative_to(folder):
            soft = soft or found
    if error is None or folder is None:
        return None
    return ask(folder) or soft


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, is a disk without room."""
    return any((found := _as_told(one)) is not None and found.is_full for one in _chain(error))


def ask(folder: Path) -> Trouble | None:
    """What is wrong with a folder: whether it is there and takes a file. None: nothing."""
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
    """Writes a file beside its place, under a name that nobody knows, and renames it: a reader has the old file or the
    new one, and never half of one. Raises OSError, and leaves nothing then."""
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
    """The number and the path that an error tells, be it in its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return Trouble(error.errno, os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "")
    numbers = [int(number) for number in _NUMBER.findall(str(error)[:100_000])]
    known = next((number for number in numbers if number in FULL | FAILING), None)
    return Trouble(known) if known is not None else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
