"""Disks that are full, as the operating system says it."""

from __future__ import annotations

import errno
import shutil

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space left, and a quota that is used up."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, is a disk without room."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, shutil.Error) and "No space left on device" in str(error):
            return True  # copytree gathers what went wrong as text
        error = error.__cause__ or error.__context__
    return False
