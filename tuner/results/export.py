"""Copies the winner out of its run folder, merges it into its base, or writes it for a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuner.config.sections import Sections
from tuner.contract import PROGRAMS, InputError, Served
from tuner.disks import is_full
from tuner.importing import Permission, add_folders, find
from tuner.results import sameness
from tuner.results.adapters import MANIFEST, checked_manifest
from tuner.results.command_line import run_command_line
from tuner.results.folder import RunFolder
from tuner.results.untrusted_read import inside, is_plain_file, read_object
from tuner.subprocess_call import SubprocessProgram


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
    runs = _Doing("an export for a server", f"--for {server}") if server else _Doing("a merge", "--merge")
    resolved = _permitted(folder, to, runs, program, trust_code, modules) if merge or server else {}
    require_new(to)
    notes = _require_same_model(folder, resolved, to, runs, accept=accept_changes) if merge or server else ()
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
        said = _call(folder, to, resolved, "serve", *given)
        served = Served(tuple(said["commands"]), tuple(said["notes"]), said["compared"])
    elif merge:
        _call(folder, to, resolved, "merge", str(folder.best), str(to))
    return to, notes, served


class _Doing(NamedTuple):
    """What runs a program's code."""

    what: str
    """In words ("a merge")."""
    option: str
    """On the command line ("--merge")."""


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


def _permitted(
    folder: RunFolder, to: Path, doing: _Doing, program: str | None, trust_code: bool, modules: Sequence[str]
) -> Mapping[str, Any]:
    """The search's settings. Raises InputError if `doing` would run code that the user has not named."""
    resolved = read_object(folder.resolved)
    run = resolved.get("run")
    named = run.get("program") if isinstance(run, dict) else None
    if not isinstance(named, str) or (named not in PROGRAMS and named != program):
        raise InputError(
            f"{doing.what} would run the program {named!r}, which this run folder names",
            where=str(folder.resolved),
            expected=f"one of {', '.join(PROGRAMS)}, or the same name on the command line",
            remedy=f"--program {named}, if you know that program",
        )
    if named not in PROGRAMS:
        permission = Permission.given(modules, beside=False)
        own = find(named, key="--program", where="--program", home=Path.cwd(), permission=permission, typed=True)
        add_folders([str(own.folder)])
    if not trust_code and (code := _call(folder, to, resolved, "foreign_code")):
        raise InputError(
            f"{doing.what} would run {code}",
            where=str(folder.resolved),
            expected="--trust-remote-code on the command line too",
            remedy="read the code first",
        )
    return resolved


def _require_same_model(
    folder: RunFolder, resolved: Mapping[str, Any], to: Path, doing: _Doing, *, accept: bool
) -> tuple[str, ...]:
    """Raises InputError if the base is not the one that the adapter was trained on; a note about it if `accept`."""
    now = sameness.parts(_call(folder, to, resolved, "made_of"))
    if not now:
        return ()
    before = sameness.parts(folder.record().facts)
    if not before:
        return ("an earlier version ran this search: whether the base is the one it trained on cannot be told",)
    words = (*doing.option.split(), sameness.ACCEPT)
    again = run_command_line(folder.path, "export", folder.name, "--to", str(to), *words)
    return sameness.require_same(
        list(sameness.changes(before, now)), where=str(folder.path), since="the adapter was trained",
        accept=accept, remedy=f"put it back, or export without {doing.option}; to go on all the same: {again}",
    )  # fmt: skip


def _call(folder: RunFolder, to: Path, resolved: Mapping[str, Any], method: str, *arguments: Any) -> Any:
    """Calls a class method of the search's program, in a process of its own, and returns its result."""
    settings = {name: resolved[name] for name in resolved if name not in (*Sections.model_fields, "about")}
    call = SubprocessProgram(resolved["run"]["program"], method, settings, *arguments, log=_log(folder, to))
    try:
        return call.result()
    finally:
        call.close()


def _log(folder: RunFolder, to: Path) -> Path:
    """A merge's log: in the run folder, or beside `to` if a link leads out of the folder or it cannot be written."""
    log = folder.logs / "export.log"
    usable = inside(folder.path, log) is not None and not log.is_symlink() and os.access(folder.logs, os.W_OK)
    return log if usable else to.with_name(f"{to.name}.log")
