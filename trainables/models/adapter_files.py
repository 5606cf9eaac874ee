"""The adapter on disk, written beside its place and renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def save_adapter(model: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> Path:
    """Saves the adapter alone to `<folder>/adapter` as safetensors; an older one there is replaced whole.

    weights: the adapter's tensors by name, where the model itself holds no more than a share of each.
    """

    def write(beside: Path) -> None:
        # "auto" would ask the hub at every save whether the base's vocabulary has changed
        given = {} if weights is None else {"state_dict": dict(weights)}
        model.save_pretrained(str(beside), save_embedding_layers=False, **given)
        (beside / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    return replace_adapter(folder, write)


def replace_adapter(folder: Path, write: Callable[[Path], None]) -> Path:
    """`<folder>/adapter` as `write` writes it to the folder it is given; an older one is replaced whole."""
    place, beside, old = folder / "adapter", folder / ".adapter.new", folder / ".adapter.old"
    for left_over in (beside, old):
        shutil.rmtree(left_over, ignore_errors=True)
    folder.stat()  # what writes makes folders that are missing, and one that was moved must stay moved
    try:
        write(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # half an adapter would keep the room that was missing
        raise
    if place.exists():
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return place
