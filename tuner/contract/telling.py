"""How far a call of a program is that takes long."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str], None]
"""Takes what a call does now, in words ("tokenizing the train rows: 12,000 of 286,200"), as often as that changes."""


def silent(text: str) -> None:
    """Tells nobody."""
