"""Calls the program of a finished search: only where its user lets it run, and with the base that it trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuner.config.sections import Sections
from tuner.contract import PROGRAMS, InputError, Tell, silent
from tuner.importing import Permission, add_folders, find
from tuner.results import sameness
from tuner.results.folder import RunFolder
from tuner.results.untrusted_read import inside, read_object
from tuner.subprocess_call import SubprocessProgram


class Doing(NamedTuple):
    """What runs a program's code."""

    what: str
    """In words ("a merge")."""
    option: str
    """On the command line ("--merge")."""


def permitted(
    folder: RunFolder, log: Path, doing: Doing, program: str | None, trust_code: bool, modules: Sequence[str]
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
    if not trust_code and (code := call(log, resolved, "foreign_code")):
        raise InputError(
            f"{doing.what} would run {code}",
            where=str(folder.resolved),
            expected="--trust-remote-code on the command line too",
            remedy="read the code first",
        )
    return resolved


def require_same_model(
    folder: RunFolder, resolved: Mapping[str, Any], log: Path, without: str, again: str, *, accept: bool
) -> tuple[str, ...]:
    """Raises InputError if the base is not the one that the adapter was trained on; a note about it if `accept`.

    without: what can be done without the base, in words. again: the command line that goes on all the same.
    """
    now = sameness.parts(call(log, resolved, "made_of"))
    if not now:
        return ()
    before = sameness.parts(folder.record().facts)
    if not before:
        return ("an earlier version ran this search: whether the base is the one it trained on cannot be told",)
    return sameness.require_same(
        list(sameness.changes(before, now)), where=str(folder.path), since="the adapter was trained",
        accept=accept, remedy=f"put it back, or {without}; to go on all the same: {again}",
    )  # fmt: skip


def call(log: Path, resolved: Mapping[str, Any], method: str, *arguments: Any, tell: Tell = silent) -> Any:
    """Calls a class method of the search's program, in a process of its own, and returns its result. log: the file that
    takes what it prints. tell: gets how far it is."""
    settings = {name: resolved[name] for name in resolved if name not in (*Sections.model_fields, "about")}
    asked = SubprocessProgram(resolved["run"]["program"], method, settings, *arguments, log=log)
    try:
        return asked.result(tell)
    finally:
        asked.close()


def log_beside(folder: RunFolder, name: str, beside: Path) -> Path:
    """The log of such a call: in the run folder, or beside `beside` if a link leads out of the folder or it cannot be
    written."""
    log = folder.logs / f"{name}.log"
    usable = inside(folder.path, log) is not None and not log.is_symlink() and os.access(folder.logs, os.W_OK)
    return log if usable else beside.with_name(f"{beside.name}.log")
