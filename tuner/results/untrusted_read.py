"""Reads files of a run folder into which a stranger may have written: no code, no more than asked for, nothing outside.

Every file that others can put there is opened by `read_plain` or listed by `plain_files`: no pipe blocks, no device is
read without end, no link is followed where only a file of the run's own makes sense.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.results import untrusted_json as strict

MAX_BYTES = 16 << 20
"""Size of the largest file that is read. `resolved.json` has a few kB, the manifest of a large adapter some hundred."""


def read_plain(path: Path, most: int = MAX_BYTES, *, links: bool = False) -> str:
    """The text of a plain file of at most `most` bytes. links: whether the path itself may be a link.

    Raises ValueError for anything else, and OSError if it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:  # checked once it is open, so that it cannot be replaced then
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):  # a pipe would block, a device never end
            raise ValueError("is no file")
        if about.st_size > most:
            raise ValueError(f"has {about.st_size:,} bytes, more than {most:,}")
        return file.read(most).decode("utf-8")


def read_object(path: Path, most: int = MAX_BYTES, *, links: bool = True) -> dict[str, Any]:
    """The JSON object in a file; most, links: as in `read_plain`. Raises InputError for anything else."""
    try:
        written = read_plain(path, most, links=links)
        if strict.deep(written):
            raise InputError("is nested too deeply", where=str(path), expected="a JSON object")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is damaged: no JSON ({error})", where=str(path)) from error
    except ValueError as error:
        raise InputError(str(error), where=str(path), expected=f"a JSON object of at most {most:,} bytes") from error
    try:
        found = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is damaged: no JSON ({error})", where=str(path)) from error
    if not isinstance(found, dict):
        raise InputError("is damaged", where=str(path), expected="a JSON object")
    return found


def plain_files(folder: Path) -> Iterator[Path]:
    """The plain files below a folder, by name; links, pipes, devices and unreadable folders are left out."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                           for entry in entries)  # fmt: skip
    except OSError:
        return
    for name, is_folder, is_file in found:
        if is_folder:
            yield from plain_files(folder / name)
        elif is_file:
            yield folder / name


def inside(folder: Path, path: str | Path | None) -> Path | None:
    """`folder / path` if that, links followed, is inside `folder`; None if it is not, or if `path` is None."""
    if path is None:
        return None
    try:
        root, found = folder.resolve(), (folder / path).resolve()
    except (OSError, ValueError, RuntimeError):  # links in a circle, a name with a NUL
        return None
    return folder / path if found != root and found.is_relative_to(root) else None


def is_plain_file(path: Path) -> bool:
    """Whether it is a file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
