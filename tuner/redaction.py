"""Takes secrets out of what is written: the ledger, logs, settings, model cards, error messages.

A secret is found in two ways. By its form: tokens of Hugging Face, AWS, Weights & Biases, GitHub and OpenAI, and what
stands after `Bearer` or between `//` and `@`. By its value: that of an environment variable with a name like a
secret's, whatever its form. A key of 40 hexadecimal digits, as W&B issued until 2025, looks like a commit, so it is
found only by its variable or by the word before it.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

Anything = TypeVar("Anything")

_FORMS: Mapping[str, str] = {
    "Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "AWS secret": r"(?i:aws_?secret(?:_access)?_?key[\"']?\s*[=:]\s*[\"']?|aws_session_token[\"']?\s*[=:]\s*[\"']?)"
    r"(?P<aws>[A-Za-z0-9/+=]{40,})",
    "W&B key": r"\bwandb_v1_[A-Za-z0-9_]{20,}|\blocal-[0-9a-f]{40}\b"
    r"|(?i:(?:wandb|w&b|api)[a-z_ .-]{0,20}key[\"']?\s*[=: ]\s*[\"']?)(?P<wandb>[0-9a-f]{40})\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}",
    "OpenAI key": r"\bsk-(?:proj-|svcacct-|admin-|ant-)[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9]{32,}",
    "bearer token": r"(?i:\bbearer\s+)(?P<bearer>[A-Za-z0-9._~+/=-]{20,})",
    "password": r"(?<=://)[^\s/:@\"']{1,64}:(?P<password>[^\s/@\"']{1,128})(?=@)",
}
_ANY = re.compile("|".join(f"(?P<f{index}>{form})" for index, form in enumerate(_FORMS.values())))
_NAMES = tuple(_FORMS)
_GROUPS = ("aws", "wandb", "bearer", "password")
_HINTS: tuple[str, ...] = (
    "hf_",
    "org_",
    "akia",
    "asia",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "_pat_",
    "sk-",
    "://",
    "aws",
    "key",
)
_HINTS += ("wandb", "bearer", "local-")
"""Every form contains one of these, in small letters. A text with none of them, as most are, takes 1 us."""

_SHORTEST = 7
"""Characters of the shortest text with a secret in it: "://u:p@"."""

_SECRET_NAME = re.compile(r"(?i)(?:token|secret|password|passwd|api_?key|access_?key|secret_?key|credentials?)$")
_LEAST = 8
"""Characters of the shortest value that is taken for a secret. A shorter one ("1", "true") stands in ordinary text."""


def redact(text: str) -> str:
    """Replaces each secret in a text by its kind: "[Hugging Face token]"."""
    if len(text) < _SHORTEST:
        return text
    if _may_hold_one(text):
        text = _ANY.sub(_replacement, text)
    for value, name in _environment():
        if value in text:
            text = text.replace(value, f"[{name}]")
    return text


def named_secret(text: str) -> str | None:
    """The kind of the first secret in a text that is found by its form; None where there is none."""
    found = _ANY.search(text) if _may_hold_one(text) else None
    return _kind(found) if found else None


def redacted(value: Anything) -> Anything:
    """Redacts every text in a value, also in dicts, lists and dataclasses."""
    return _walk(value)  # type: ignore[no-any-return]


@lru_cache(maxsize=4096)
def _name(name: Any) -> Any:
    """Redacts a key of a mapping. Cached, because the same few keys come again and again."""
    return redact(name) if isinstance(name, str) else name


def _walk(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        clean = redact(value)
        return value if clean == value else clean  # the very same object: an enum stays one
    if isinstance(value, Mapping):
        return {_name(name): _walk(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_walk(one) for one in value) if type(value) in (list, tuple) else value
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _walk(getattr(value, f.name)) for f in fields(value) if f.init}
        return replace(value, **changed)
    return value


def _replacement(found: re.Match[str]) -> str:
    start, text = found.start(), found[0]
    for group in _GROUPS:
        if found[group] is not None:  # the words before the secret stay
            begin, end = found.start(group) - start, found.end(group) - start
            return f"{text[:begin]}[{_kind(found)}]{text[end:]}"
    return f"[{_kind(found)}]"


def _kind(found: re.Match[str]) -> str:
    return next(name for index, name in enumerate(_NAMES) if found[f"f{index}"] is not None)


def _may_hold_one(text: str) -> bool:
    low = text.lower()
    return any(hint in low for hint in _HINTS)


def _environment() -> tuple[tuple[str, str], ...]:
    """The environment's secrets. Looked up once a second, because that takes 50 us and the rest of a text 1 us."""
    return _secrets_at(int(time.monotonic()))


@lru_cache(maxsize=1)
def _secrets_at(second: int) -> tuple[tuple[str, str], ...]:
    """Secret values with the names of their variables, the longest first; without paths and plain words. second: makes
    the cache expire."""
    told = {value.strip(): name for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    usable = [v for v in told if len(v) >= _LEAST and not v.isalpha() and not v.startswith(("/", "~", "."))]
    return tuple((value, told[value]) for value in sorted(usable, key=len, reverse=True))


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def open_log(path: Path) -> IO[bytes]:
    """Opens a log for appending, unbuffered; /dev/null where something else than a plain file is at its place: a pipe
    would block, and a link may lead anywhere. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ELOOP, errno.EISDIR):
            raise
    return Path(os.devnull).open("ab", buffering=0)


class LogFile(logging.FileHandler):
    """A log file without secrets. Where the disk is full, records are dropped: a log must not end a search."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, delay=True, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def _open(self) -> Any:
        file: Any = open_log(Path(self.baseFilename))
        return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # of opening the file, which logging itself does not handle
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drops the record that could not be written, and prints nothing, because the live view is on the terminal."""

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            self.stream = None  # type: ignore[assignment]


class RedactedStream:
    """A text stream for what libraries print: takes secrets out line by line, and writes to a file's descriptor. Never
    raises."""

    encoding = "utf-8"

    def __init__(self, file: Any) -> None:
        self._descriptor, self._rest = file.fileno(), ""

    def write(self, text: str) -> int:
        lines, newline, self._rest = (self._rest + text).rpartition("\n")
        self._put(lines + newline)
        return len(text)

    def flush(self) -> None:
        self._put(self._rest)
        self._rest = ""

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return int(self._descriptor)

    def _put(self, text: str) -> None:
        with suppress(OSError):  # a full disk, a closed file
            os.write(self._descriptor, redact(text).encode("utf-8", "backslashreplace"))
