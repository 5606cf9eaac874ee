"""Fingerprints of files by their content: neither times nor paths change them."""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path

from tuner.contract import InputError

DIGITS = 16
"""Hex digits of SHA-256: two files that differ have the same ones with a chance of 1 in 2^64."""


def of_file(file: Path) -> str:
    """The fingerprint of a file's content; takes 0.6 s a GB and the disk's time. Raises InputError where it cannot be
    read."""
    try:
        return _sum(file)[:DIGITS]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(file)) from error


def sums(folder: Path, leaving_out: str = "") -> dict[str, str]:
    """The whole SHA-256 of every file below a folder, by path; without files of the name `leaving_out`. Raises
    OSError."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != leaving_out)
    return {p.relative_to(folder).as_posix(): _sum(p) for p in files}


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_path(path: Path) -> dict[str, str]:
    """Fingerprints by name: of all files below a folder, or of one file, under its suffix; none where nothing is there.

    Raises InputError.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {file.relative_to(path).as_posix(): of_file(file) for file in files}
    return {path.suffix: of_file(path)} if path.is_file() else {}


def matching(pattern: str) -> list[Path]:
    """The files that match a pattern, `data/**/*.jsonl`, in the order of their names."""
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
    return [path for path in map(Path, sorted(found)) if path.is_file()]


def of_rows(given: str | tuple[str, ...] | None) -> dict[str, str]:
    """Fingerprints of all files that a setting for rows names: files, folders and patterns; none of what is on the
    hub.

    Raises InputError.
    """
    names = (given,) if isinstance(given, str) else given or ()
    found: dict[str, str] = {}
    for place, name in enumerate(names):
        of_name = of_path(Path(name))
        if not of_name and glob.has_magic(name):
            of_name = {str(file): of_file(file) for file in matching(name)}
        found |= {f"{place}: {inner}": value for inner, value in of_name.items()} if len(names) > 1 else of_name
    return found


def of_files(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Fingerprints by name of the files in `folder` whose names begin with one of `names`. Raises InputError."""
    files = sorted(file for file in folder.glob("*") if file.is_file() and file.name.startswith(names))
    return {file.name: of_file(file) for file in files}
