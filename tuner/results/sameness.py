"""Compares what trials are made of, then and now: base, tokenizer, rows, code, libraries, each by its fingerprints.

A part is `{"source": what the settings call it, "files": {name: fingerprint}}`. The `prepared` event holds them by name
as `made_of`. Parts of another source are not compared: the user has named something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.contract import InputError

MADE_OF = "made_of"
"""The fact of the `prepared` event that holds the parts."""
LIBRARIES = "libraries"
"""The part whose files are the libraries' versions."""
ACCEPT = "--accept-changes"
_MOST_FILES = 200
"""The most files of a part that have a fingerprint each; more have one together."""
_SHOWN = 5
"""The most changes that a message names."""

Parts = Mapping[str, Mapping[str, Any]]
"""Parts by name."""


@dataclass(frozen=True)
class Change:
    """A file of a part, or a library, that has changed."""

    part: str
    """The part's name: base, tokenizer, ..."""
    source: str
    """What the settings call the part."""
    name: str
    """The file or the library; "" for a part with one fingerprint."""
    before: str
    """Its fingerprint or version then; "" if it was not there."""
    now: str
    """Its fingerprint or version now; "" if it is not there."""

    def __str__(self) -> str:
        what = f"{self.part} {self.name}".strip() if self.name.startswith(".") or not self.name else self.name
        if not self.before or not self.now:
            return f"{what} is {'new' if self.now else 'gone'}"
        return f"{what} was {self.before}, is {self.now}"


def parts(facts: Mapping[str, Any]) -> Parts:
    """The parts in the facts of a `prepared` event; entries of another shape are left out."""
    found = facts.get(MADE_OF)
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name): {"source": str(part.get("source", "")), "files": {str(k): str(v) for k, v in part["files"].items()}}
        for name, part in found.items()
        if isinstance(part, Mapping) and isinstance(part.get("files"), Mapping)
    }


def changes(before: Parts, now: Parts) -> Iterator[Change]:
    """The differences between parts that have the same name and source in both."""
    for name in before:
        part = now.get(name)
        if part is None or part["source"] != before[name]["source"]:
            continue
        then, here = before[name]["files"], part["files"]
        for file in sorted({*then, *here}):
            if then.get(file) != here.get(file):
                yield Change(name, part["source"], file, then.get(file, ""), here.get(file, ""))


def require_same(found: Sequence[Change], *, where: str, since: str, remedy: str, accept: bool) -> tuple[str, ...]:
    """Raises InputError if a part has changed, or returns notes about it if `accept`.

    A change of libraries is always a note: losses then differ in their last digits only. where, remedy: for the error.
    since: when the parts were the earlier ones, in words.
    """
    versions = [change for change in found if change.part == LIBRARIES]
    others = [change for change in found if change.part != LIBRARIES]
    notes = [f"libraries have changed since {since}: {_told(versions)}; losses may differ in their last digits"]
    notes = notes if versions else []
    if not others:
        return tuple(notes)
    changed = list(dict.fromkeys(f"the {change.part} {change.source}".strip() for change in others))
    if accept:
        return (*notes, f"accepted: {_and(changed)} changed since {since} ({_told(others)}); "
                        "losses before and after cannot be compared")  # fmt: skip
    only_ids = {change.part for change in others} == {"token ids"}
    raise InputError(
        f"{_and(changed)} changed since {since}: losses before and after cannot be compared; {_told(others)}"
        + (f"; the rows are the same: {_told(versions)}" if only_ids and versions else ""),
        where=where,
        expected="what it was made of then",
        remedy=remedy,
    )


def digests(made_of: Parts) -> dict[str, dict[str, str]]:
    """The source and one fingerprint of each part except the libraries: short enough for a settings file."""
    return {
        name: {"source": part["source"], "fingerprint": _digest(part["files"])}
        for name, part in made_of.items()
        if name != LIBRARIES
    }


def as_parts(short: Mapping[str, Mapping[str, str]]) -> Parts:
    """Makes parts of what `digests` returned, to compare them with those of `one_each`."""
    return {name: {"source": said["source"], "files": {"": said["fingerprint"]}} for name, said in short.items()}


def one_each(made_of: Parts) -> Parts:
    """The parts except the libraries, with one fingerprint each."""
    return as_parts(digests(made_of))


def part(source: str, files: Mapping[str, str]) -> dict[str, Any]:
    """A part. files: fingerprints by name; more than 200 are replaced by one fingerprint of all."""
    if len(files) <= _MOST_FILES:
        return {"source": source, "files": dict(files)}
    return {"source": source, "files": {f"{len(files)} files": _digest(files)}}


def _digest(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def _told(found: Sequence[Change]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(str(change) for change in found[:_SHOWN]) + more


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
