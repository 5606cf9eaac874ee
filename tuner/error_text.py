"""Parts of messages: one line of an exception's text, the name that was probably meant, a path as people type it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

MOST_SAID = 300
"""The most characters of an exception's line that a message quotes."""


def first_line(said: object, most: int = MOST_SAID) -> str:
    """The first line of an exception's text that is not blank; the name of its type where the text is empty."""
    return _lines(said)[0][:most]


def last_line(said: object, most: int = MOST_SAID) -> str:
    """The last line that is not blank: in the text of another process's traceback that is the exception."""
    return _lines(said)[-1][:most]


def named_line(error: BaseException, most: int = MOST_SAID) -> str:
    """The name of an exception's type and the first line of its text, if it has any, in at most `most` characters."""
    name = type(error).__name__
    try:
        said = str(error).strip()
    except Exception:  # the `__str__` of a user's exception may raise
        said = ""
    return (f"{name}: {first_line(said)}" if said else name)[:most]


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path as messages show it: relative to the working folder if it lies below it, else absolute.

    A path that cannot be compared with the working folder (the folder is gone, or on another drive) stays as it is.
    """
    try:
        relative = os.path.relpath(path)
        absolute = os.path.abspath(path)  # noqa: PTH100  resolve() follows links
    except (OSError, ValueError):
        return os.fspath(path)
    return absolute if relative == os.pardir or relative.startswith(os.pardir + os.sep) else relative


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The valid name that was probably meant, if one is close."""
    return next(iter(all_near(name, names, most=1, cutoff=cutoff)), None)


def all_near(name: str, names: Iterable[str], most: int, cutoff: float = 0.6) -> list[str]:
    """The valid names that may have been meant, the closest first."""
    by_lower = {known.lower(): known for known in names}
    return [by_lower[close] for close in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=cutoff)]


def _lines(said: object) -> list[str]:
    return [line.strip() for line in str(said).splitlines() if line.strip()] or [type(said).__name__]
