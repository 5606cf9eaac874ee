"""Settings from several places laid over each other, each value with the place it was written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.config.document import Document, KeyPath
from tuner.config.sections import DEFAULT_KINDS

_REPLACED_WHOLE: tuple[KeyPath, ...] = (("search", "space"),)
"""A bare word here is a reference and not a `kind`: a mapping laid over it takes its place."""


@dataclass(frozen=True)
class Origin:
    """Where a value was written, and what its relative paths are relative to. typed: on the command line."""

    where: str
    base: Path
    typed: bool = False


class Layers:
    """A nested mapping that later layers override key by key."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self._origins: dict[KeyPath, Origin] = {}

    def add_document(self, document: Document, base: Path) -> None:
        """Lays a file over what is there."""
        self._origins[()] = Origin(document.source, base)
        # `train:` with nothing (or only comments) under it is an empty section, not the value null.
        sections = {name: value for name, value in document.data.items() if value is not None}
        self._merge(self.data, sections, (), lambda key: Origin(document.where(key), base))

    def add_value(self, key: KeyPath, value: Any, origin: Origin) -> None:
        """Lays one value over what is there."""
        nested: Any = value
        for part in reversed(key):
            nested = {part: nested}
        self._merge(self.data, nested, (), lambda _: origin, below=len(key) - 1)

    def origin(self, key: KeyPath = ()) -> Origin:
        """Where the value at `key`, or the nearest written key above it, comes from."""
        while key and key not in self._origins:
            key = key[:-1]
        return self._origins.get(key) or Origin("the command line", Path.cwd())

    def where(self, key: KeyPath = ()) -> str:
        return self.origin(key).where

    def get(self, key: KeyPath, default: Any = None) -> Any:
        value: Any = self.data
        for part in key:
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    def replace(self, key: KeyPath, value: Any) -> None:
        """Another value for a key that is there, from the same place."""
        target = self.data
        for part in key[:-1]:
            target = target[str(part)]
        target[str(key[-1])] = value

    def _merge(
        self,
        old: dict[str, Any],
        new: Mapping[str, Any],
        at: KeyPath,
        origin: Callable[[KeyPath], Origin],
        below: int = 0,
    ) -> None:
        """`below`: depth above which keys only lead to the one that `add_value` was given, and have no origin."""
        for name, value in new.items():
            key = (*at, name)
            if len(at) >= below:
                self._origins[key] = origin(key)
            if not isinstance(value, Mapping):
                self._forget(key, old.get(name))
                old[name] = value
                for index in range(len(value)) if isinstance(value, list) else ():
                    self._origins[*key, index] = origin((*key, index))
                continue
            held = was = old.get(name)
            if isinstance(held, str) and "kind" not in value and key not in _REPLACED_WHOLE:
                held = {"kind": held}
            # Options of one kind mean nothing to another: `scheduler.kind=none` drops asha's reduction factor.
            if not isinstance(held, dict) or _kind(value, key, held) != _kind(held, key):
                self._forget(key, was)
                held = {}
            old[name] = held
            self._merge(held, value, key, origin, below)

    def _forget(self, key: KeyPath, held: Any) -> None:
        """Drops the origins of what `held`, the value at `key` until now, has below it. It walks that value and not
        all origins: a file has a value for each of its lines."""
        names = held if isinstance(held, Mapping) else range(len(held)) if isinstance(held, list) else ()
        for name in names:
            self._origins.pop((*key, name), None)
            if isinstance(held, Mapping):
                self._forget((*key, name), held[name])


def _kind(value: Mapping[str, Any], key: KeyPath, held: Mapping[str, Any] | None = None) -> Any:
    if "kind" in value:
        return value["kind"]
    return _kind(held, key) if held is not None else DEFAULT_KINDS.get(key)
