"""The winner, taken out of its run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tuner.apart import Apart
from tuner.contract import InputError
from tuner.results.folder import RunFolder


def export_best(folder: RunFolder, to: Path, merge: bool = False) -> Path:
    """Copies `best/` to the new folder `to`; with merge, writes the base with the adapter merged into it.

    Raises InputError where the search has no best trial yet, or where `to` already holds something.
    """
    if not (folder.best / "manifest.json").is_file():
        raise InputError(
            "there is no best adapter",
            where=str(folder.path),
            expected="a search with at least one usable trial, at its end",
            remedy=f"python -m tuner status {folder.name}",
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError("is already there", where=str(to), expected="a new or an empty folder")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write here ({error.strerror})", where=str(to), expected="a folder to make") from error
    if merge:
        resolved = json.loads(folder.resolved.read_text(encoding="utf-8"))
        settings = {name: resolved[name] for name in resolved if name not in ("search", "scheduler", "run", "about")}
        call = Apart(
            resolved["run"]["program"], "merge", settings, str(folder.best), str(to), log=folder.logs / "export.log"
        )
        try:
            call.result()
        finally:
            call.close()
    else:
        shutil.copytree(folder.best, to, dirs_exist_ok=True)
    return to
