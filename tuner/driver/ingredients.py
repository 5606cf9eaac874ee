"""What trials are made of (data, base, the user's code, libraries), and whether that has changed since the search
began."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuner.config import Experiment
from tuner.contract import PROGRAMS, InputError, Objective
from tuner.results import sameness
from tuner.results.command_line import resume_command_line
from tuner.results.folder import RunFolder
from tuner.results.records import SearchRecord
from tuner.results.versions import versions
from tuner.space import FunctionSpace, Space

Setup = Mapping[str, Any]
"""The fields and details of a trial's `contract.Setup` in one mapping, as the ledger has them."""


def made_of(facts: Mapping[str, Any], experiment: Experiment, space: Space | FunctionSpace) -> dict[str, Any]:
    """The fingerprints of all parts: those in the program's facts, the program's code, a space function's, the
    libraries."""
    found = {name: sameness.part(part["source"], part["files"]) for name, part in sameness.parts(facts).items()}
    if experiment.program not in PROGRAMS:
        found["program"] = sameness.part(experiment.program, _code(experiment.program_class.__module__))
    if isinstance(space, FunctionSpace):
        found["space function"] = sameness.part(space.target, _code(space.target.partition(":")[0]))
    return {**found, sameness.LIBRARIES: sameness.part("", versions())}


def require_same(
    record: SearchRecord, facts: Mapping[str, Any], experiment: Experiment, folder: RunFolder, *, accept: bool
) -> tuple[str, ...]:
    """Compares what trials are made of now with what the search began with, and with what `run.made_of` expects.

    Returns notes for the user. Raises InputError that names what has changed; with `accept` that becomes a note.
    """
    now, notes = sameness.parts(facts), list[str]()
    if expected := experiment.run.made_of:
        short = sameness.as_parts({name: part.model_dump() for name, part in expected.items()})
        found = list(sameness.changes(short, sameness.one_each(now)))
        remedy = f"put it back, give {sameness.ACCEPT}, or take run.made_of out of the file"
        notes += sameness.require_same(
            found, where="run.made_of", since="these settings were written", remedy=remedy, accept=accept
        )
    if not record.trials:
        return tuple(notes)
    before, where = sameness.parts(record.facts), str(folder.path)
    since, resume = "the search began", f"{resume_command_line(folder.path)} {sameness.ACCEPT}"
    remedy = f"put it back, or start a new search; to go on all the same: {resume}"
    if not before:
        _require_same_counts(record.facts, facts, where, remedy, accept=accept)
        return (*notes, "an earlier version began this search and did not write down what its trials are made of: "
                        "whether the base is the same cannot be told")  # fmt: skip
    found = list(sameness.changes(before, now))
    return (*notes, *sameness.require_same(found, where=where, since=since, remedy=remedy, accept=accept))


def require_same_objective(record: SearchRecord, objective: Objective, folder: RunFolder) -> None:
    """Raises InputError where the search began with another objective than its program has now: the values of both
    cannot be compared."""
    began = record.objective
    if record.trials and (objective.name, objective.direction) != (began.name, began.direction):
        raise InputError(
            f"the search began to {began.direction} {began.name}, and its program now says to {objective.direction} "
            f"{objective.name}",
            where=str(folder.path),
            expected="a program whose first objective is still the same",
            remedy="put the program's OBJECTIVES back, or start a new search under another name",
        )


def unlike_the_first(record: SearchRecord, number: int, unlike: Callable[[Setup, Setup], str]) -> str:
    """What a program says of the set-up of trial `number` compared with the first other trial's; see
    `Program.unlike`."""
    own = record.trials[number].setup
    first = next((trial.setup for trial in record.trials.values() if trial.setup and trial.number != number), {})
    return unlike(first, own) if first and own else ""


def _require_same_counts(
    before: Mapping[str, Any], now: Mapping[str, Any], where: str, remedy: str, *, accept: bool
) -> None:
    """Compares the counts of rows and tokens: an earlier version of tuner kept nothing else. Raises InputError."""
    sets = [name for name, fact in {**before, **now}.items() if isinstance(fact, Mapping) and "rows" in fact]
    changed = [name for name in sets if before.get(name) != now.get(name)]
    if changed and not accept:
        raise InputError(f"the {' and '.join(changed)} rows are not those that the search began with: losses before "
                         "and after cannot be compared", where=where, expected="the same rows",
                         remedy=remedy)  # fmt: skip


def _code(module: str) -> dict[str, str]:
    """Fingerprints of all Python files of the top-level package that a module is in, or of its own file. Imports
    nothing."""
    try:
        top = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):  # ValueError: of `__main__`
        top = None
    if top is None:
        return {}
    if top.submodule_search_locations is None:
        file = Path(top.origin or "")
        return {file.name: _fingerprint(file)} if file.is_file() else {}
    folders = [Path(place) for place in top.submodule_search_locations]
    return {
        file.relative_to(folder).as_posix(): _fingerprint(file)
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
        if file.is_file()
    }


def _fingerprint(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as error:
        return f"not readable ({error.strerror})"
