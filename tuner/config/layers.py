"""Merges settings from several places, later over earlier, and keeps where each value was written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.config.document import Document, KeyPath
from tuner.config.sections import DEFAULT_KINDS

_REFERENCES: tuple[KeyPath, ...] = (("search", "space"),)
"""Keys at which a bare word is a reference and not a `kind`: a mapping laid over it replaces it."""


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    where: str
    """`file:line`, or the flag, as error messages show it."""
    base: Path
    """Relative paths in the value are relative to this folder."""
    typed: bool = False
    """Whether it was typed on the command line."""


class Layers:
    """A nested mapping that later layers override key by key."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        """The merged settings."""
        self._origins: dict[KeyPath, Origin] = {}

    def add_document(self, document: Document, base: Path) -> None:
        """Lays a file over what is there. base: its relative paths are relative to this folder."""
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
        """The place of `origin(key)`, for error messages."""
        return self.origin(key).where

    def get(self, key: KeyPath, default: Any = None) -> Any:
        """The value at `key`, or `default` if no layer has one."""
        value: Any = self.data
        for part in key:
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value

    def replace(self, key: KeyPath, value: Any) -> None:
        """Changes the value of a key that is there; its origin stays."""
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
        """Lays `new` over `old`, the mapping at key `at`. below: keys of fewer levels only lead to the key that
        `add_value` was given, and get no origin."""
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
            if isinstance(held, str) and "kind" not in value and key not in _REFERENCES:
                held = {"kind": held}
            # Options of one kind mean nothing to another: `scheduler.kind=none` drops asha's reduction factor.
            if not isinstance(held, dict) or _kind(value, key, held) != _kind(held, key):
                self._forget(key, was)
                held = {}
            old[name] = held
            self._merge(held, value, key, origin, below)

    def _forget(self, key: KeyPath, held: Any) -> None:
        """Drops the origins of every key in `held`, the value at `key` until now. It walks that value and not all
        origins, which are as many as the file has lines."""
        names = held if isinstance(held, Mapping) else range(len(held)) if isinstance(held, list) else ()
        for name in names:
            self._origins.pop((*key, name), None)
            if isinstance(held, Mapping):
                self._forget((*key, name), held[name])


def _kind(value: Mapping[str, Any], key: KeyPath, held: Mapping[str, Any] | None = None) -> Any:
    """The `kind` of the mapping at `key`: its own, else that of `held`, which it is laid over, else the default."""
    if "kind" in value:
        return value["kind"]
    return _kind(held, key) if held is not None else DEFAULT_KINDS.get(key)
