"""The stored rows with images, as a trainer reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from trainables.data import store
from trainables.images import collating, processors
from trainables.images.blob import FILE, BlobReader
from trainables.images.vision import FACT
from trainables.settings import Settings
from tuner.contract import Fault, Preparation, Reason


def open_collator(settings: Settings, preparation: Preparation) -> tuple[Any, Any]:
    """The processor and the collator that the rows were encoded with. Raises InputError, and Fault where the processor
    on this machine is another one."""
    said: Mapping[str, Any] = preparation.facts[FACT]
    processor, _ = processors.load(settings.model, settings.data)
    kind, now = type(processor.image_processor).__name__, processors.fingerprints(settings.model)
    if (now, kind) != (said["files"], said["image_processor"]):
        others = sorted(name for name in {*now, *said["files"]} if now.get(name) != said["files"].get(name))
        what = f"{', '.join(others)} changed" if others else f"it has {kind}, where there was {said['image_processor']}"
        raise Fault(
            Reason.CONFIG,
            f"the processor on this machine is not the one that the rows were prepared with: {what}",
            "put the files back; have torchvision on every node, or on none",
        )
    return processor, collating.make(processor, settings.data, said["format"], said["template"])


def open_rows(preparation: Preparation, name: str) -> Any:
    """Opens a set, "train" or "validation", as a `datasets.Dataset` of rows in TRL's format, without labels: these are
    the collator's. Images are decoded when a row is asked for."""
    blob = BlobReader(Path(preparation.folder) / FILE)

    def rows_of(batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        rows = [json.loads(text) for text in batch[store.ROW]]
        for row in rows:
            row["images"] = [decoded(blob.read(begin, size)) for begin, size, _ in row["images"]]
        return {key: [row[key] for row in rows] for key in rows[0]}

    return store.open_set(preparation, name).select_columns([store.ROW]).with_transform(rows_of)


def decoded(content: bytes) -> Any:
    """The `PIL.Image.Image` of a stored image, in RGB."""
    from PIL import Image

    with Image.open(BytesIO(content)) as found:
        return found.convert("RGB")
