"""Disks that are full, as the operating system says it."""

from __future__ import annotations

import errno

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space left, and a quota that is used up."""
_TOLD = ("No space left on device", "os error 28", "Disk quota exceeded")
"""As copytree, which gathers errors as text, and safetensors, which is no Python, say it."""


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised for, is a disk without room."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(told in str(error) for told in _TOLD):
            return True
        error = error.__cause__ or error.__context__
    return False
