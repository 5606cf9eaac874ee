"""Keeps on this machine which code of their own a user let a search run, so that a resume need not be told again.

A run folder alone is no reason to run code: it may be a stranger's. A permission is kept under the SHA-256 of the
search's settings, so a run folder with any other settings, at the same place or elsewhere, has none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tuner.contract import InputError
from tuner.disks import replace_file
from tuner.importing import Own, Permission, add_folders
from tuner.results.untrusted_read import read_object


def remember(digest: str, code: Iterable[Own]) -> None:
    """Keeps the modules and their folders under `digest`. Without a home folder to keep them in, a resume asks for
    `--allow-module`."""
    kept = [{"module": own.module, "folder": str(own.folder)} for own in code]
    place = _place(digest)
    if not kept or place is None:
        return
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(place, json.dumps({"code": kept}), 0o600)


def with_remembered(permission: Permission, digest: str) -> Permission:
    """Adds to a permission the modules that were kept under `digest`, and their folders to sys.path."""
    place = _place(digest)
    if place is None:
        return permission
    try:
        kept = read_object(place)["code"]
        code = [(str(one["module"]), str(one["folder"])) for one in kept]
    except (InputError, KeyError, TypeError):
        return permission
    add_folders(folder for _, folder in code)
    return replace(permission, modules=tuple(dict.fromkeys((*permission.modules, *(module for module, _ in code)))))


def _place(digest: str) -> Path | None:
    """The file of a permission; None for a `digest` that is none (a ledger may hold anything), and without a home."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return Path(state, "tuner", "code", f"{digest}.json")
