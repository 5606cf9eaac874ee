"""What a model folder must hold, looked at without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.data import hub, sources
from trainables.settings import ModelSettings
from tuner.contract import InputError


def check(model: ModelSettings) -> Path:
    """The folder of the base. Refuses what cannot be one: missing, an adapter, without config or without safetensors
    weights.

    A base on the hub, and its tokenizer, are fetched first, where this machine does not have them.
    """
    name = model.model_name_or_path
    folder = Path(name)
    if not folder.is_dir() and (folder.exists() or not sources.is_hub_id(name)):
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(what, where=name, expected="a local model folder or a hub id (org/name)")
    for source in sources.bases(model):
        fetched = hub.fetch(source)
        folder = fetched if source.name == name else folder
    if (folder / "adapter_config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path")
        raise InputError("this is an adapter, not a base model", where=name, expected="the base model's folder",
                         remedy=f"set model.model_name_or_path to its base {base!r}, or merge the adapter first",
                         )  # fmt: skip
    if not (folder / "config.json").is_file():
        raise InputError("the folder has no config.json", where=name, expected="a model saved by transformers")
    if not any(folder.glob("*.safetensors")):
        others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise InputError(f"no safetensors weights ({others})", where=name, expected="model.safetensors",
                         remedy="save it again with transformers' save_pretrained")  # fmt: skip
    return folder


def vocabulary(model: ModelSettings) -> int | None:
    """Number of token ids a base at hand knows, or None where it cannot be told."""
    found = config(model)
    if found is None:
        return None
    size = found.get("vocab_size", (found.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def config(model: ModelSettings) -> dict[str, Any] | None:
    """What config.json says of a base, or None where there is none at hand."""
    source = sources.base_of(model)
    path = Path(model.model_name_or_path) / "config.json" if source is None else hub.at_hand(source, "config.json")
    return _read(path) if path is not None and path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON ({error})", where=str(path)) from None
    return found if isinstance(found, dict) else {}
