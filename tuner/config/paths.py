"""Resolves relative paths against the file that they are written in, and checks them before anything starts."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Sequence
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


def resolve_paths(
    layers: Layers, keys: Sequence[KeyPath], elsewhere: bool = False
) -> tuple[dict[str, Path], list[InputError]]:
    """Makes the paths among these settings absolute. Returns those that were written as relative paths, by dotted
    name, and an error for each that is missing.

    A name that exists as a path is that path. One that only looks like a path (it begins with `.`, `/` or `~`, or
    ends like a data file) must exist. Everything else is left alone: `Qwen/Qwen3-8B` is a hub id.
    elsewhere: the search will run on other machines; absolute paths are theirs and are not checked.
    """
    relative: dict[str, Path] = {}
    errors: list[InputError] = []
    for key in keys:
        value = layers.get(key)
        if isinstance(value, list) or (isinstance(value, str) and glob.has_magic(value)):
            found = _several(value if isinstance(value, list) else [value], layers.origin(key), dotted(key), elsewhere)
            errors += found[1]
            layers.replace(key, found[0] if isinstance(value, list) else found[0][0])
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


def _several(values: list[Any], origin: Origin, key: str, elsewhere: bool) -> tuple[list[Any], list[InputError]]:
    """Paths and patterns of one setting, made absolute, and an error for each that is missing."""
    found: list[Any] = []
    errors = []
    for value in values:
        path = absolute(value, origin.base) if isinstance(value, str) else Path()
        is_path = isinstance(value, str) and (glob.has_magic(value) or path.exists() or is_pathlike(value))
        found.append(str(path) if is_path else value)
        if not is_path or (elsewhere and value.startswith("/")):
            continue
        if elsewhere:
            errors.append(
                InputError(
                    f"{key}: patterns and lists of files are not sent to a cluster",
                    where=origin.where,
                    expected="one file or folder",
                    remedy="put them into a folder and name it",
                )
            )
        elif not glob.has_magic(value) and not path.exists():
            errors.append(missing(path, key, origin.where))
    return found, errors


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
