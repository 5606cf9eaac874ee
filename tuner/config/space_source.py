"""Finds what `search.space` refers to and reads it; `tuner.space` checks its parameters later.

A space may bring settings (`settings:`), which the experiment file overrides. So the space's file is read here, before
the settings are merged, and `tuner.space` makes the space from what was read.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.config.document import MAX_DEPTH, Document, KeyPath, kind_of, read_document
from tuner.config.layers import Layers
from tuner.config.paths import absolute, missing
from tuner.config.words import listed
from tuner.contract import InputError
from tuner.error_text import nearest, shown_path
from tuner.importing import Own, Permission, find

SPACE_KEY: KeyPath = ("search", "space")
_EXPECTED = "a shipped space by name, a YAML file, package.module:function, or a mapping with `parameters:`"


@dataclass(frozen=True)
class SpaceSource:
    """A search space as it was written: a mapping from YAML, or a Python function that is found but not imported."""

    name: str
    """Its name in tables and messages."""
    source: str
    """Where it is written, for messages and for the user."""
    data: Mapping[str, Any] | None = None
    """The mapping; None for a function."""
    function: Own | None = None
    """The function; None for a mapping."""
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    """`file:line` of each key in `data`."""
    path: Path | None = None
    """The YAML file; None for a function, and for a mapping in the experiment file."""
    text: str = ""
    """The YAML file's text."""

    def where(self, key: KeyPath = ()) -> str:
        """`file:line` of the key, or of the nearest key above it that has a line."""
        while key:
            if key in self.places:
                return self.places[key]
            key = key[:-1]
        return self.source


def shipped_spaces() -> dict[str, Path]:
    """The files of the spaces that tuner ships, by name."""
    try:
        folder = Path(str(importlib.resources.files("search_spaces")))
    except ModuleNotFoundError:
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_space(
    spec: str | Mapping[str, Any],
    base: Path,
    where: str = "search.space",
    *,
    permission: Permission | None = None,
    typed: bool = False,
) -> SpaceSource:
    """Reads the space that `spec` refers to.

    base: relative paths are relative to this folder, and modules are looked for there. where: the place of `spec`, for
    errors. permission: which code of the user's own may run; None: what the environment allows. typed: whether `spec`
    was given on the command line and not in a file. Raises InputError if there is no such space.
    """
    if isinstance(spec, Mapping):
        return SpaceSource(str(spec.get("name") or "inline"), where, spec)
    if not isinstance(spec, str) or not spec.strip():
        raise InputError(f"search.space: got {kind_of(spec)}", where=where, expected=_EXPECTED)
    if spec.endswith((".yaml", ".yml")) or spec.startswith((".", "/", "~")):
        path = absolute(spec, base)
        if not path.is_file():
            raise missing(path, "search.space", where)
        return _from_document(read_document(path), path.stem)
    if ":" in spec:
        permission = permission or Permission.given(beside=False)
        own = find(spec, key="search.space", where=where, home=base, permission=permission, typed=typed)
        return SpaceSource(own.name, where, function=own)
    shipped = shipped_spaces()
    if spec not in shipped:
        guess = nearest(spec, shipped)
        raise InputError(
            f"search.space: no shipped space `{spec}`" + (f"; did you mean `{guess}`?" if guess else ""),
            where=where,
            expected=f"one of {listed(shipped)}, a YAML file, package.module:function, or a mapping",
        )
    return _from_document(read_document(shipped[spec]), spec)


def read_space_in(layers: Layers, default: str, permission: Permission) -> SpaceSource:
    """The space that the experiment in `layers` names, with the lines of an inline one."""
    spec = layers.get(SPACE_KEY, default)
    origin = layers.origin(SPACE_KEY)
    if not isinstance(spec, dict):
        return read_space(spec, origin.base, origin.where, permission=permission, typed=origin.typed)
    places = {key: layers.where((*SPACE_KEY, *key)) for key in _keys(spec)}
    return SpaceSource(str(spec.get("name") or "inline"), origin.where, spec, places=places)


def space_settings(space: SpaceSource) -> list[tuple[KeyPath, Any]]:
    """The settings that a space brings: key and value, in the order written. Raises InputError for anything else."""
    settings = (space.data or {}).get("settings")
    if settings is None:
        return []
    if not isinstance(settings, Mapping):
        raise InputError(
            f"settings: got {kind_of(settings)}", where=space.where(("settings",)), expected="a mapping of settings"
        )
    for name in settings:
        if str(name).count(".") >= MAX_DEPTH:
            where = space.where(("settings", name))
            raise InputError("nested too deeply", where=where, expected=f"at most {MAX_DEPTH} names in one key")
    return [(tuple(str(name).split(".")), value) for name, value in settings.items()]


def _from_document(document: Document, name: str) -> SpaceSource:
    places = {key: document.where(key) for key in document.lines}
    source = document.source if document.path is None else shown_path(document.path)
    return SpaceSource(
        str(document.data.get("name") or name), source, document.data, None, places, document.path, document.text
    )


def _keys(value: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    """The key of every value in `value`, whose own key is `at`."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, child in items:
        yield (*at, name)
        yield from _keys(child, (*at, name))
