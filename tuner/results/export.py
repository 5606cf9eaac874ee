"""The winner, taken out of its run folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.apart import Apart
from tuner.contract import PROGRAMS, InputError
from tuner.disks import is_full
from tuner.importing import Permission, add_folders, find
from tuner.results.adapters import MANIFEST, checked_manifest
from tuner.results.command_line import run_command_line
from tuner.results.folder import RunFolder
from tuner.results.stranger import inside, is_plain_file, read_object


def export_best(
    folder: RunFolder,
    to: Path,
    merge: bool = False,
    *,
    program: str | None = None,
    trust_remote_code: bool = False,
    modules: Sequence[str] = (),
) -> Path:
    """Copies `best/` to the new folder `to`; with merge, writes the base with the adapter merged into it.

    Copied is what the manifest names, once each file has been found to be what was written, and nothing that a link
    leads to. A merge runs the search's program: one that is not shipped must be named again as `program`, and a base
    with code of its own wants `trust_remote_code` again, because what a run folder says is not enough to run code.
    modules: that may be run wherever they are installed.
    Raises InputError where the search has no best trial yet, where a file is damaged, or where `to` holds something.
    """
    if not is_plain_file(folder.best / MANIFEST) or inside(folder.path, folder.best) is None:
        raise InputError(
            "there is no best adapter",
            where=str(folder.path),
            expected="a search with at least one usable trial, at its end",
            remedy=run_command_line(folder.path, "status", folder.name),
        )
    files = checked_manifest(folder.best)["files"]
    resolved = _mergeable(folder, program, trust_remote_code, modules) if merge else {}
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError("is already there", where=str(to), expected="a new or an empty folder")
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not merge:
            for name in (*files, MANIFEST):
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder.best / name, to / name, follow_symlinks=False)
    except OSError as error:
        remedy = "make room, and export into a new folder" if is_full(error) else ""
        told = f"cannot write here ({error.strerror or error})"
        raise InputError(told, where=str(to), expected="a folder to make", remedy=remedy) from error
    if merge:
        _merge(folder, to, resolved)
    return to


def _mergeable(
    folder: RunFolder, program: str | None, trust_remote_code: bool, modules: Sequence[str]
) -> Mapping[str, Any]:
    resolved = read_object(folder.resolved)
    run, model = resolved.get("run"), resolved.get("model")
    named = run.get("program") if isinstance(run, dict) else None
    if not isinstance(named, str) or (named not in PROGRAMS and named != program):
        raise InputError(
            f"a merge would run the program {named!r}, which this run folder names",
            where=str(folder.resolved),
            expected=f"one of {', '.join(PROGRAMS)}, or the same name on the command line",
            remedy=f"--program {named}, if you know that program",
        )
    if named not in PROGRAMS:
        permission = Permission.given(modules, beside=False)
        own = find(named, key="--program", where="--program", home=Path.cwd(), permission=permission, typed=True)
        add_folders([str(own.folder)])
    if isinstance(model, dict) and model.get("trust_remote_code") and not trust_remote_code:
        raise InputError(
            f"a merge would run code that comes with the base {model.get('model_name_or_path')!r}",
            where=str(folder.resolved),
            expected="--trust-remote-code on the command line too",
            remedy="read the code first",
        )
    return resolved


def _merge(folder: RunFolder, to: Path, resolved: Mapping[str, Any]) -> None:
    settings = {name: resolved[name] for name in resolved if name not in ("search", "scheduler", "run", "about")}
    program = resolved["run"]["program"]
    call = Apart(program, "merge", settings, str(folder.best), str(to), log=_log(folder, to))
    try:
        call.result()
    finally:
        call.close()


def _log(folder: RunFolder, to: Path) -> Path:
    """Where a merge says what it does: in the run folder, unless a link leads out of it or it cannot be written to."""
    log = folder.logs / "export.log"
    fit = inside(folder.path, log) is not None and not log.is_symlink() and os.access(folder.logs, os.W_OK)
    return log if fit else to.with_name(f"{to.name}.log")
