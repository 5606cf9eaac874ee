"""Copies the winner out of its run folder, merges it into its base, or writes it for a server."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.contract import InputError, Served
from tuner.disks import is_full
from tuner.results import sameness
from tuner.results.adapters import MANIFEST, checked_manifest
from tuner.results.command_line import run_command_line
from tuner.results.folder import RunFolder
from tuner.results.program_calls import Doing, call, log_beside, permitted, require_same_model
from tuner.results.untrusted_read import inside, is_plain_file


def export_best(
    folder: RunFolder,
    to: Path,
    merge: bool = False,
    *,
    program: str | None = None,
    trust_code: bool = False,
    modules: Sequence[str] = (),
    accept_changes: bool = False,
    server: str | None = None,
    compare: bool = True,
) -> tuple[Path, tuple[str, ...], Served | None]:
    """Copies `best/` to the new folder `to`; with merge, writes the base with the adapter merged into it. Returns the
    folder, notes for the user, and what the program says of an export for a server.

    server: the one that the program writes it for. compare: whether it then compares what it wrote with the trained
    model.

    A copy has the files that the manifest names, each compared with its SHA-256; links are not followed. A merge, and
    an export for a server, run code, for which a run folder's word is not enough:

    program: the search's program, if it is not a shipped one. trust_code: whether a base may run code of its own.
    modules: modules that may run wherever they are installed. accept_changes: whether to merge into another base than
    the adapter was trained on, as far as the program can tell them apart.

    Raises InputError if there is no best trial yet, if a file is damaged, if `to` is not empty, if running code is not
    permitted, or where the program refuses.
    """
    files = require_best(folder)["files"]
    log = log_beside(folder, "export", to)
    runs = Doing("an export for a server", f"--for {server}") if server else Doing("a merge", "--merge")
    resolved = permitted(folder, log, runs, program, trust_code, modules) if merge or server else {}
    require_new(to)
    notes = _same(folder, resolved, to, log, runs, accept=accept_changes) if merge or server else ()
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not merge and not server:
            for name in (*files, MANIFEST):
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder.best / name, to / name, follow_symlinks=False)
    except OSError as error:
        remedy = "make room, and export into a new folder" if is_full(error) else ""
        told = f"cannot write here ({error.strerror or error})"
        raise InputError(told, where=str(to), expected="a folder to make", remedy=remedy) from error
    served = None
    if server:
        given = (str(folder.best.resolve()), str(to.resolve()), server, folder.name, merge, compare)
        said = call(log, resolved, "serve", *given)
        served = Served(tuple(said["commands"]), tuple(said["notes"]), said["compared"])
    elif merge:
        call(log, resolved, "merge", str(folder.best), str(to))
    return to, notes, served


def require_best(folder: RunFolder) -> dict[str, Any]:
    """The manifest of `best/`, after a check of its files. Raises InputError if there is none or a file is damaged."""
    if not is_plain_file(folder.best / MANIFEST) or inside(folder.path, folder.best) is None:
        raise InputError(
            "there is no best adapter",
            where=str(folder.path),
            expected="a search with at least one usable trial, at its end",
            remedy=run_command_line(folder.path, "status", folder.name),
        )
    return checked_manifest(folder.best)


def require_new(to: Path) -> None:
    """Raises InputError if something is in the folder `to` already."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError("is already there", where=str(to), expected="a new or an empty folder")


def _same(
    folder: RunFolder, resolved: Mapping[str, Any], to: Path, log: Path, doing: Doing, *, accept: bool
) -> tuple[str, ...]:
    words = (*doing.option.split(), sameness.ACCEPT)
    again = run_command_line(folder.path, "export", folder.name, "--to", str(to), *words)
    return require_same_model(folder, resolved, log, f"export without {doing.option}", again, accept=accept)
