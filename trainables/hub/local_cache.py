"""Reads what this machine's cache of the hub has, without a lock and without a request to the hub.

A cache may be another user's, on a disk that cannot be written, or on a machine without a network. Libraries take locks
in it, write to it or query the hub before they read; the functions here only read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.hub.sources import LEFT_OUT, HubSource, wanted

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Snapshot:
    """What the cache has of one commit of a repository."""

    folder: Path
    """The snapshot's folder in the cache."""
    missing: tuple[str, ...]
    """Files of the commit that are not cached, or of another size."""
    is_listed: bool
    """Whether the cache has the commit's list of files; if not, `missing` has only files that cached ones refer to, and
    those that nothing can be loaded without."""

    @property
    def is_complete(self) -> bool:
        """Whether no file is missing."""
        return not self.missing


def cache_folder() -> Path:
    """The folder of the hub's files: HF_HUB_CACHE, or below HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def look(source: HubSource) -> Snapshot | None:
    """What the cache has of a source; None where it has nothing. A branch stands for the commit of the last request.

    Raises OSError where the cache cannot be read.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    commit = source.revision if source.is_pinned else cached_commit(source)
    folder = _repository(source) / "snapshots" / str(commit)
    if commit is None or not folder.is_dir():
        return None
    try:
        listed = get_cached_repo_tree(source.name, repo_type=source.kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        return Snapshot(folder, tuple(_lacking(folder, source)), is_listed=False)
    sizes = {file.path: file.size for file in listed}
    names = filter_repo_objects(sizes, allow_patterns=wanted(source), ignore_patterns=list(LEFT_OUT))
    return Snapshot(folder, tuple(name for name in names if _size(folder / name) != sizes[name]), is_listed=True)


def rows(source: HubSource, name: str | None, split: str) -> Any | None:
    """The rows of a pinned dataset as a `datasets.Dataset`; None where `datasets` has not prepared them before.

    Raises what `datasets` raises for an unknown split and for damaged files.
    """
    import datasets
    from datasets.arrow_reader import ArrowReader

    folder = _prepared(source, name) if source.is_pinned else None
    if folder is None:
        return None
    info = datasets.DatasetInfo.from_directory(str(folder))
    reader = ArrowReader(str(folder), info)
    return datasets.Dataset(**reader.read(info.dataset_name, split, list(info.splits.values())))


def _repository(source: HubSource) -> Path:
    return cache_folder() / f"{source.kind}s--{source.name.replace('/', '--')}"


def cached_commit(source: HubSource) -> str | None:
    """The commit of a branch or a tag when the hub was last asked; None where it never was. Raises OSError."""
    try:
        return (_repository(source) / "refs" / (source.revision or "main")).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _lacking(folder: Path, source: HubSource) -> Iterator[str]:
    """Files that the cache lacks and a base or a tokenizer cannot be loaded without, as far as cached files say."""
    if not any((folder / name).exists() for name in _TOKENIZERS) and not source.has_weights:
        yield _TOKENIZERS[0]
    if not source.has_weights:
        return
    if not (folder / "config.json").exists():
        yield "config.json"
    if (folder / _INDEX).exists():
        shards = read_json(folder / _INDEX).get("weight_map", {}).values()
        yield from (shard for shard in sorted(set(shards)) if not (folder / shard).exists())
    elif not any(folder.glob("*.safetensors")):
        yield "model.safetensors"


def _prepared(source: HubSource, name: str | None) -> Path | None:
    """The folder with the Arrow files of a commit in one of its configurations; None where there is none.

    `datasets` renames the folder to this place when it is complete.
    """
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, repository = source.name.rpartition("/")
    folder = Path(config.HF_DATASETS_CACHE, "___".join([*filter(None, [owner]), camelcase_to_snakecase(repository)]))
    wanted_name = name or _default_configuration(source)
    found = folder.glob(f"{wanted_name}/*/{source.revision}/dataset_info.json")
    return next((file.parent for file in found), None)


def _default_configuration(source: HubSource) -> str:
    """The configuration that `datasets` takes where none is named, as the dataset's card says."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    card = _repository(source) / "snapshots" / str(source.revision) / "README.md"
    if not card.is_file():
        return "default"
    configurations = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    chosen = configurations.get_default_config_name() if configurations else None
    return chosen or (next(iter(configurations)) if len(configurations) == 1 else "default")


def read_json(file: Path) -> Mapping[str, Any]:
    """A JSON object of a snapshot; empty where the file holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
