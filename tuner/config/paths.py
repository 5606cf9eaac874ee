"""Resolves relative paths against the file that they are written in, and checks them before anything starts."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tuner.config.document import KeyPath
from tuner.config.layers import Layers, Origin
from tuner.config.words import dotted
from tuner.contract import InputError
from tuner.error_text import nearest

_FILE_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jinja", ".yaml", ".yml")
_COPIES = "tuner-storage"
"""Folder of the working copies of object stores, in the temporary folder."""
_PATH_STARTS = (".", "/", "~")


@dataclass(frozen=True)
class Several:
    """What a setting names by a pattern, or by a list of files, folders, patterns and hub ids."""

    entries: tuple[tuple[str, tuple[Path, ...]], ...]
    """Each name, absolute where it is a path, with the files and folders of this machine that it stands for; none where
    it is no path, or one of another machine."""
    is_list: bool
    """Whether the setting is a list."""


def resolve_paths(
    layers: Layers, keys: Sequence[KeyPath], elsewhere: bool = False
) -> tuple[dict[str, Path | Several], list[InputError]]:
    """Makes the paths among these settings absolute. Returns those that were written as relative paths, by dotted
    name, and an error for each that is missing.

    A name that exists as a path is that path. One that only looks like a path (it begins with `.`, `/` or `~`, or
    ends like a data file) must exist. Everything else is left alone: `Qwen/Qwen3-8B` is a hub id.
    elsewhere: the search will run on other machines; absolute paths are theirs and are not checked.
    """
    relative: dict[str, Path | Several] = {}
    errors: list[InputError] = []
    for key in keys:
        value = layers.get(key)
        if isinstance(value, list) or (isinstance(value, str) and glob.has_magic(value)):
            given = value if isinstance(value, list) else [value]
            found, missed = _several(given, layers.origin(key), dotted(key), elsewhere)
            errors += missed
            names = [name for name, _ in found]
            layers.replace(key, names if isinstance(value, list) else names[0])
            if any(files for _, files in found):
                relative[dotted(key)] = Several(tuple(found), isinstance(value, list))
            continue
        if not isinstance(value, str) or not value:
            continue
        if elsewhere and value.startswith("/"):
            continue
        origin = layers.origin(key)
        path = absolute(value, origin.base)
        if path.exists():
            layers.replace(key, str(path))
            if not value.startswith("/"):
                relative[dotted(key)] = path
        elif is_pathlike(value):
            layers.replace(key, str(path))
            errors.append(missing(path, dotted(key), origin.where))
    return relative, errors


def _several(
    values: list[Any], origin: Origin, key: str, elsewhere: bool
) -> tuple[list[tuple[Any, tuple[Path, ...]]], list[InputError]]:
    """The entries of a `Several`, and an error for each path that is missing."""
    found: list[tuple[Any, tuple[Path, ...]]] = []
    errors = []
    for value in values:
        path = absolute(value, origin.base) if isinstance(value, str) else Path()
        is_pattern = isinstance(value, str) and glob.has_magic(value) and not path.exists()
        if not isinstance(value, str) or not (is_pattern or path.exists() or is_pathlike(value)):
            found.append((value, ()))
            continue
        if value.startswith("/"):  # the other machine's, or one that is there for all
            found.append((str(path), ()))
            if not elsewhere and not is_pattern and not path.exists():
                errors.append(missing(path, key, origin.where))
            continue
        files = _matching(path) if is_pattern else (path,)
        found.append((str(path), files))
        if not is_pattern and not path.exists():
            errors.append(missing(path, key, origin.where))
        elif elsewhere and not files:  # here, whoever reads it says what is there
            errors.append(InputError(f"{key}: no file matches {path}", where=origin.where,
                                     expected="a pattern of files on this machine, which are sent along, or an "
                                     "absolute one of files on the cluster"))  # fmt: skip
    return found, errors


def _matching(pattern: Path) -> tuple[Path, ...]:
    """The files that match a pattern, in the order of their names."""
    names = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    return tuple(path for path in map(Path, names) if path.is_file())


def folder_of(pattern: str) -> Path:
    """The folder that a path, or a pattern, is looked for in: all of it before the first star, or before the name."""
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[: min(fixed, len(parts) - 1)])


def absolute(path: str | Path, base: Path | None = None) -> Path:
    """The absolute path, without `..` and `~`; symbolic links stay as the user named them."""
    joined = (base or Path.cwd()) / os.path.expanduser(path)  # noqa: PTH111  Path.expanduser() raises for ~nobody
    return Path(os.path.abspath(joined))  # noqa: PTH100  resolve() follows links


def is_uri(storage: str) -> bool:
    """Whether runs are kept in an object store: `s3://bucket/runs`."""
    return "://" in storage


def storage_folder(storage: str | Path) -> Path:
    """The absolute folder of the runs. For a URI it is this machine's working copy: it has the same path on every node,
    and its name is the quoted URI, which `storage_uri` reads back."""
    if not is_uri(str(storage)):
        return absolute(storage)
    return Path(tempfile.gettempdir(), _COPIES, quote(str(storage).rstrip("/"), safe=""))


def storage_uri(path: Path) -> str | None:
    """The URI that a path in a working copy stands for; None for any other path."""
    for folder in (path, *path.parents):
        if folder.parent.name == _COPIES and is_uri(unquote(folder.name)):
            return "/".join([unquote(folder.name), *path.relative_to(folder).parts])
    return None


def is_pathlike(value: str) -> bool:
    """True for text that can only be meant as a path."""
    return value.startswith(_PATH_STARTS) or value.lower().endswith(_FILE_SUFFIXES)


def missing(path: Path, key: str, where: str) -> InputError:
    """The error for a path that is not there, with the nearest name that is."""
    folder = path.parent
    if not folder.is_dir():
        return InputError(f"{key}: no {path}: there is no folder {folder}", where=where)
    try:
        # A folder of a million files must not hold up an error message.
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(2000), entries, strict=False)]
    except OSError:
        names = []
    guess = nearest(path.name, sorted(names))
    what = f"{key}: no file or folder {path}"
    return InputError(f"{what}; did you mean `{guess}`?" if guess else what, where=where)
