"""Saves adapters: each is written to a folder beside its place, which is then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def save_adapter(model: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> Path:
    """Saves the adapter alone to `<folder>/adapter` as safetensors, replacing an older one; gives that folder.

    weights: by name, the adapter's tensors A [rank, in] and B [out, rank], where the model has only shards of them.
    Raises OSError.
    """

    def write(beside: Path) -> None:
        # "auto" would query the hub at every save for a change of the base's vocabulary
        given = {} if weights is None else {"state_dict": dict(weights)}
        model.save_pretrained(str(beside), save_embedding_layers=False, **given)
        (beside / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    return replace_adapter(folder, write)


def replace_adapter(folder: Path, write: Callable[[Path], None]) -> Path:
    """Replaces `<folder>/adapter` by what `write` writes into the folder that it is given. Raises OSError."""
    place, beside, old = folder / "adapter", folder / ".adapter.new", folder / ".adapter.old"
    for left_over in (beside, old):
        shutil.rmtree(left_over, ignore_errors=True)
    folder.stat()  # raises: `write` would create a missing folder, and one that was moved must stay moved
    try:
        write(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # half an adapter would use up a disk that is full
        raise
    if place.exists():
        place.rename(old)
    beside.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return place
