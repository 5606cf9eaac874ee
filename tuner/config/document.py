"""Reads YAML that a person wrote, safely, and keeps the line of every key.

Narrower than YAML 1.1 on purpose. `on`, `off`, `yes` and `no` stay text, `1e-5` is a number, dates stay text. Tags
(`!!python/...`), aliases, duplicate keys and a second document are refused: in an experiment file each is either a
mistake or an attack. The reader works on the parser's events, so it constructs only text, numbers, booleans, null,
lists and mappings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from tuner.contract import InputError
from tuner.error_text import shown_path

KeyPath = tuple[str | int, ...]
"""The names and indices that lead to a value: ("train", "learning_rate"), or
("search", "space", "parameters", "lora_r", "values", 0)."""

MAX_BYTES = 1 << 20
"""Size of the largest file that is read, in bytes. A hand-written file has a few KiB; PyYAML takes about 10 s for
1 MiB."""

MAX_DEPTH = 20
"""Levels of the deepest key that is read. The deepest useful one (a value in the list of a parameter of an inline
space) has 6."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}")
_BASED = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")


@dataclass(frozen=True)
class Document:
    """A mapping that was read from a file, and the line of each of its keys."""

    data: dict[str, Any]
    """The mapping."""
    source: str
    """The file as error messages name it."""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    """The line of each key, from 1."""
    path: Path | None = None
    """The file; None for a mapping that was not read from YAML."""
    text: str = ""
    """The file's text."""

    def where(self, key: KeyPath = ()) -> str:
        """`file:line` of the key, or of the nearest key above it that has a line."""
        while key:
            if key in self.lines:
                return f"{self.source}:{self.lines[key]}"
            key = key[:-1]
        return self.source


def read_document(path: Path, source: str | None = None) -> Document:
    """Reads one YAML file. source: its name in messages, by default the path as a person here would type it.

    Raises InputError for a file that cannot be read, is too large, or holds no mapping in valid YAML.
    """
    source = source or shown_path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"the file has {size:,} bytes",
                where=source,
                expected=f"at most {MAX_BYTES:,} bytes of YAML; is this perhaps the data?",
            )
        # One byte more than allowed: the file may have grown, and a device file states no size at all.
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=source) from error
    if len(raw) > MAX_BYTES:
        raise InputError("the file does not end", where=source, expected=f"at most {MAX_BYTES:,} bytes of YAML")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8", where=f"{source}:{line}", expected="YAML text in UTF-8"
        ) from error
    data, lines = parse(text, source)
    return Document(data, source, lines, path, text)


def parse(text: str, source: str) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """The mapping in `text`, and the line of every key path in it. Raises InputError for anything else."""
    data, lines = _parse_any(text, source)
    if data is None:
        raise InputError("the file is empty", where=source, expected="YAML with sections such as `model:` and `data:`")
    if not isinstance(data, dict):
        raise InputError(f"the file holds {kind_of(data)}", where=source, expected="a mapping of `key: value`")
    return data, lines


def parse_value(text: str, source: str) -> Any:
    """A value given on the command line: a plain scalar, or quoted or flow YAML (`[8, 16]`, `{kind: nf4}`)."""
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        return _parse_any(text, source)[0]
    return plain_scalar(text)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """The value of an unquoted word: null, true or false, a number, or else text."""
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _INFINITE.fullmatch(text):
        return float(match[1] + "inf")
    return float("nan") if text in (".nan", ".NaN", ".NAN") else text


def kind_of(value: Any) -> str:
    """The kind of a value in a word a person uses: text, an integer, a list."""
    for kinds, word in _KINDS:
        if isinstance(value, kinds):
            return word
    return "nothing (null)" if value is None else type(value).__name__


_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (bool, "true or false"),  # before int: True is one
    (int, "an integer"),
    (float, "a number"),
    ((list, tuple), "a list"),
    (Mapping, "a mapping"),
)


def _parse_any(text: str, source: str) -> tuple[Any, dict[KeyPath, int]]:
    if bad := _CONTROL.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise InputError(f"control character {bad[0]!r}", where=f"{source}:{line}", expected="plain text")
    reader = _Reader(source)
    try:
        return reader.read(yaml.parse(text, Loader=yaml.SafeLoader)), reader.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context or "not YAML")
        if "'\\t'" in problem:
            problem = "a tab where YAML wants spaces"
        raise InputError(f"not valid YAML: {problem}", where=f"{source}:{mark.line + 1}" if mark else source) from error
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {error}", where=source) from error


class _Reader:
    """Builds plain values from parser events and notes the line of each key."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[KeyPath, int] = {}

    def read(self, stream: Iterator[events.Event]) -> Any:
        value, documents = None, 0
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse(event, "a second document begins here", "one YAML document")
                value = self._value(next(stream), stream, ())
        return value

    def _value(self, event: events.Event, stream: Iterator[events.Event], key: KeyPath) -> Any:
        if len(key) > MAX_DEPTH:
            raise self._refuse(event, "nested too deeply", f"at most {MAX_DEPTH} levels")
        if isinstance(event, events.AliasEvent):
            raise self._refuse(event, f"the alias `*{event.anchor}`", "the value itself; aliases are not read")
        if (tag := getattr(event, "tag", None)) is not None:
            raise self._refuse(event, f"the tag `{tag}`", "plain YAML; tags are not read")
        if isinstance(event, events.ScalarEvent):
            return plain_scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, events.SequenceStartEvent):
            return self._list(stream, key)
        return self._mapping(stream, key)

    def _list(self, stream: Iterator[events.Event], key: KeyPath) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(stream), events.SequenceEndEvent):
            at = (*key, len(values))
            self.lines[at] = _line(event)
            values.append(self._value(event, stream, at))
        return values

    def _mapping(self, stream: Iterator[events.Event], key: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(stream), events.MappingEndEvent):
            name = self._value(event, stream, key) if isinstance(event, events.ScalarEvent) else None
            if not isinstance(name, str):
                shown = event.value if isinstance(event, events.ScalarEvent) else "this"
                raise self._refuse(event, f"the key `{shown}` is not text", "a name; quote it if it is meant as text")
            at, line = (*key, name), _line(event)
            if name in values:
                dotted = ".".join(str(part) for part in at)
                raise self._refuse(
                    event, f"`{dotted}` is written twice, on lines {self.lines[at]} and {line}", "each key once"
                )
            self.lines[at] = line
            values[name] = self._value(next(stream), stream, at)
        return values

    def _refuse(self, event: events.Event, what: str, expected: str) -> InputError:
        return InputError(what, where=f"{self.source}:{_line(event)}", expected=expected)


def _line(event: events.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
