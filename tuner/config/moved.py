"""Settings that earlier versions had in another section: there they are read in a run folder, and refused in a search
file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tuner.config.document import Document, KeyPath
from tuner.config.words import dotted
from tuner.contract import InputError

_Name = tuple[str, str]

MOVED: Mapping[_Name, _Name] = {
    ("scheduler", "trials_per_gpu"): ("resources", "trials_per_gpu"),
    ("scheduler", "gpus_per_trial"): ("resources", "gpus_per_trial"),
    ("scheduler", "workers_per_trial"): ("resources", "workers_per_trial"),
    ("scheduler", "strategy"): ("resources", "strategy"),
    ("run", "gpus_per_trial"): ("resources", "gpus_per_trial"),
    ("run", "cpus_per_trial"): ("resources", "cpus_per_trial"),
    ("run", "accelerator_type"): ("resources", "accelerator_type"),
    ("run", "max_concurrent_trials"): ("resources", "max_concurrent_trials"),
    ("run", "scale_to"): ("resources", "scale_to"),
}
"""The old place of each setting that has moved, and its place now. Of two old places of one setting, the first here
counts."""

Change = tuple[KeyPath, Any, str]
"""A key, its new value, and the flag that gave it, as error messages name it."""


def with_moved(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that an earlier version wrote into a run folder, each at the place that it has now."""
    now: dict[str, Any] = {name: dict(v) if isinstance(v, Mapping) else v for name, v in resolved.items()}
    for old, name in _old_in(now):
        value = now[old[0]].pop(old[1])
        if isinstance(section := now.setdefault(name[0], {}), dict):
            section.setdefault(name[1], value)
    return now


def without_moved(
    document: Document | None, changes: Iterable[Change]
) -> tuple[Document | None, list[Change], list[InputError]]:
    """A search file and changes to it without the settings that have moved, and an error for each of those."""
    errors: list[InputError] = []
    if document is not None:
        data: dict[str, Any] = {name: dict(v) if isinstance(v, Mapping) else v for name, v in document.data.items()}
        for old, name in _old_in(data):
            del data[old[0]][old[1]]
            errors.append(_refused(old, name, document.where(old), f"write `{name[1]}` under `{name[0]}:`"))
        document = replace(document, data=data) if errors else document
    kept: list[Change] = []
    for key, value, where in changes:
        below = {str(key[0]): value if len(key) == 1 else {key[1]: value}}
        found = [_refused(old, name, where, f"--set {dotted(name)}=...") for old, name in _old_in(below)]
        errors += found
        kept += [] if found else [(key, value, where)]
    return document, kept, errors


def _old_in(data: Mapping[str, Any]) -> Iterator[tuple[_Name, _Name]]:
    """The old place and the place now of each setting that `data` has at its old place."""
    for old, name in MOVED.items():
        section = data.get(old[0])
        if isinstance(section, Mapping) and old[1] in section:
            yield old, name


def _refused(old: _Name, name: _Name, where: str, remedy: str) -> InputError:
    return InputError(f"`{dotted(old)}` has moved to `{dotted(name)}`", where=where, remedy=remedy)
