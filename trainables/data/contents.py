"""Fingerprints of files by their content: neither times nor paths change them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tuner.contract import InputError

DIGITS = 16
"""Hex digits of SHA-256: two files that differ have the same ones with a chance of 1 in 2^64."""


def of_file(file: Path) -> str:
    """The fingerprint of a file's content; takes 0.6 s a GB and the disk's time. Raises InputError where it cannot be
    read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:DIGITS]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(file)) from error


def of_path(path: Path) -> dict[str, str]:
    """Fingerprints by name: of all files below a folder, or of one file, under its suffix; none where nothing is there.

    Raises InputError.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {file.relative_to(path).as_posix(): of_file(file) for file in files}
    return {path.suffix: of_file(path)} if path.is_file() else {}


def of_files(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Fingerprints by name of the files in `folder` whose names begin with one of `names`. Raises InputError."""
    files = sorted(file for file in folder.glob("*") if file.is_file() and file.name.startswith(names))
    return {file.name: of_file(file) for file in files}
