"""The facts that a preparation has of images, and what needs them. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.contract import InputError

FACT = "images"
"""Key of the facts about images in a preparation; it is not there where rows are text."""
NOT_PACKED = (
    "rows have images: each has pixels of another shape, for which packed trials have no common pass, and TRL refuses "
    "to pack them"
)
"""Why trials are not packed."""


def are_in(facts: Mapping[str, Any]) -> bool:
    """Whether the rows of a preparation have images. facts: of the preparation."""
    return bool(facts.get(FACT))


def require_images(recipe: str, drawn: Sequence[Any], facts: Mapping[str, Any]) -> None:
    """Raises InputError where an adapter on the parts that take images would get no gradient: no row has an image.

    recipe: `model.vision` of the settings. drawn: its values in the space.
    """
    if are_in(facts) or "adapted" not in (recipe, *drawn):
        return
    searched = recipe != "adapted"
    raise InputError(
        "model.vision adapted, and no row has an image: an adapter there would never be trained",
        where="search.space" if searched else "model.vision",
        expected="rows with images",
        remedy="take vision out of the space" if searched else "set model.vision to frozen",
    )
