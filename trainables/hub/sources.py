"""Finds out what the settings name on the hub, and at which revision."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trainables.settings import DataSettings, ModelSettings, Settings

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = "*.safetensors"
_FILES = (_WEIGHTS, "*.json", "*.model", "*.txt", "*.jinja", "*.py")
"""Files that a base and its tokenizer are loaded from."""
LEFT_OUT = ("original/*", "onnx/*", "consolidated*")
"""Copies of the weights in the formats of other libraries."""
_TOKENIZER = "model.tokenizer_revision"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt")
"""Endings of files with rows: a name with such an ending is no hub id."""
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
"""Endings of such files that are compressed."""


@dataclass(frozen=True)
class HubSource:
    """A hub repository that the settings name."""

    name: str
    """The hub id."""
    kind: Literal["model", "dataset"]
    """The kind of repository; a tokenizer is in a model."""
    setting: str
    """The setting that has its revision."""
    revision: str | None
    """A branch, a tag or a commit; None: the main branch."""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return bool(self.revision and _COMMIT.fullmatch(self.revision))

    @property
    def has_weights(self) -> bool:
        """Whether a base is loaded from it, and not a tokenizer alone."""
        return self.kind == "model" and self.setting != _TOKENIZER


def wanted(source: HubSource) -> list[str]:
    """Patterns of the files that are downloaded of a base or a tokenizer."""
    return [pattern for pattern in _FILES if source.has_weights or pattern != _WEIGHTS]


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `org/name` (or is a legacy bare name) and is not a path that exists."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def is_dataset_id(name: str) -> bool:
    """Whether rows of this name are a dataset on the hub, and not a file that is missing."""
    return is_hub_id(name) and Path(name).suffix.lower() not in (*SUFFIXES, *COMPRESSIONS)


def base_of(model: ModelSettings) -> HubSource | None:
    """The base, where it is on the hub."""
    source = HubSource(model.model_name_or_path, "model", "model.model_revision", model.model_revision)
    return source if is_hub_id(source.name) else None


def tokenizer_of(model: ModelSettings) -> HubSource | None:
    """The tokenizer, where it is on the hub; the base's own comes with the base."""
    if model.tokenizer == model.model_name_or_path:
        return base_of(model)
    source = HubSource(model.tokenizer, "model", _TOKENIZER, model.tokenizer_revision)
    return source if is_hub_id(source.name) else None


def tokenizer_alone(model: ModelSettings) -> HubSource | None:
    """The tokenizer without the weights beside it, where it is on the hub."""
    source = tokenizer_of(model)
    return source and replace(source, setting=_TOKENIZER)


def bases(model: ModelSettings) -> list[HubSource]:
    """Those of the base and its tokenizer that are on the hub, each once."""
    found = (base_of(model), tokenizer_of(model))
    return list(dict.fromkeys(source for source in found if source is not None))


def names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Each name of rows in a setting that may have several."""
    return (given,) if isinstance(given, str) else given or ()


def rows(data: DataSettings) -> list[HubSource]:
    """Those of the training and validation rows that are datasets on the hub."""
    found = [HubSource(name, "dataset", "data.revision", data.revision) for name in names(data.train)]
    revision = data.validation_revision or data.revision
    found += [HubSource(name, "dataset", "data.validation_revision", revision) for name in names(data.validation)]
    return [source for source in found if is_dataset_id(source.name)]


def unpinned(settings: Settings) -> list[HubSource]:
    """What the settings name on the hub without saying which commit of it."""
    return [source for source in (*bases(settings.model), *rows(settings.data)) if not source.is_pinned]
