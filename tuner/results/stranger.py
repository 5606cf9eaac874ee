"""Reading what a stranger may have left in a run folder: never code, never more than asked for, never outside of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.results import strict

MAX_BYTES = 16 << 20
"""`resolved.json` has a few kB, the manifest of a large adapter some hundred."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError naming the file where it holds anything else."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # a pipe would block, a device never end
            raise InputError("is no file", where=str(path), expected="a JSON object")
        if about.st_size > MAX_BYTES:
            raise InputError(f"has {about.st_size:,} bytes", where=str(path), expected=f"at most {MAX_BYTES:,}")
        written = path.read_text(encoding="utf-8")
        if strict.deep(written):
            raise InputError("is nested too deeply", where=str(path), expected="a JSON object")
        found = json.loads(written)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is damaged: no JSON ({error})", where=str(path)) from error
    if not isinstance(found, dict):
        raise InputError("is damaged", where=str(path), expected="a JSON object")
    return found


def inside(folder: Path, path: str | Path | None) -> Path | None:
    """`path`, from `folder` on, where it and whatever it links to lie in `folder`; None where it leads out of it."""
    if path is None:
        return None
    try:
        root, found = folder.resolve(), (folder / path).resolve()
    except (OSError, ValueError, RuntimeError):  # links in a circle, a name with a NUL
        return None
    return folder / path if found != root and found.is_relative_to(root) else None


def is_plain_file(path: Path) -> bool:
    """A file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
