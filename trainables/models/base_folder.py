"""Checks what a model folder must hold, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.hub import client, sources
from trainables.models import checkpoint
from trainables.settings import ModelSettings
from tuner.contract import InputError


def check(model: ModelSettings) -> Path:
    """Checks the base and gives the folder of its files. Downloads a base and a tokenizer that the cache lacks.

    Raises InputError for what cannot be a base: missing, an adapter, without config, without complete safetensors
    files, or quantized in another way than the settings say.
    """
    name = model.model_name_or_path
    folder = Path(name)
    if not folder.is_dir() and (folder.exists() or not sources.is_hub_id(name)):
        what = "a file, not a folder" if folder.exists() else "no such folder"
        gguf = folder.suffix == ".gguf" and folder.exists()
        raise InputError(what, where=name, expected="a local model folder or a hub id (org/name)",
                         remedy=checkpoint.NO_GGUF if gguf else "")  # fmt: skip
    for source in sources.bases(model):
        fetched = client.fetch(source)
        folder = fetched if source.name == name else folder
    require_no_adapter(name, folder)
    files = checkpoint.files(folder)
    if not (folder / "config.json").is_file():
        raise InputError("the folder has no config.json", where=name, expected="a model saved by transformers")
    for file in files:
        checkpoint.header(file)
    config = _read(folder / "config.json")
    require_language_head(config, name)
    _check_quantization(model, config)
    return folder


def require_no_adapter(name: str, folder: Path) -> None:
    """Raises InputError where the folder of the base `name` holds an adapter."""
    if (folder / "adapter_config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path")
        raise InputError("this is an adapter, not a base model", where=name, expected="the base model's folder",
                         remedy=f"set model.model_name_or_path to its base {base!r}, or merge the adapter first",
                         )  # fmt: skip


def stored_quantized(found: Mapping[str, Any]) -> str:
    """In which quantized form a base is stored: "nf4", "fp4", "int8" of bitsandbytes, or a method by transformers'
    name; "" for a base that is not quantized. found: the content of its config.json."""
    said = found.get("quantization_config")
    if not isinstance(said, dict):
        return ""
    if said.get("load_in_4bit"):
        return str(said.get("bnb_4bit_quant_type", "fp4"))
    return "int8" if said.get("load_in_8bit") else str(said.get("quant_method") or "")


_OTHER_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
"""Ends of the names of classes whose outputs are no tokens. Their checkpoints have all of a language model's weights
where its head is tied to its embeddings: only the name tells."""


def require_language_head(config: Mapping[str, Any], where: str) -> None:
    """Raises InputError where the base has another head than a language model's. config: the content of its
    config.json. where: its name."""
    said = config.get("architectures")
    named = str(said[0]) if isinstance(said, list) and said else ""
    if named.endswith(_OTHER_HEADS):
        raise InputError(f"the base is a {named}: its head gives classes or places in the text, and no next token",
                         where=f"{where}: config.json", expected="a language model",
                         remedy="take the language model that it was made from")  # fmt: skip


def _check_quantization(model: ModelSettings, found: Mapping[str, Any]) -> None:
    """Raises InputError where the base is stored quantized in another way than the settings say."""
    stored, wanted = stored_quantized(found), model.quantization.kind
    if not stored or stored == wanted:
        return
    where = model.model_name_or_path
    if stored == "nf4":
        raise InputError("the base is stored in 4 bits (bitsandbytes, nf4)", where=where,
                         expected="model.quantization: nf4", remedy="--set model.quantization=nf4")  # fmt: skip
    if wanted != "none":
        raise InputError(
            f"the base is stored quantized already ({stored}), and cannot be quantized to {wanted}", where=where,
            expected="a base that is not quantized",
            remedy=f"take the model that it was made from, with model.quantization {wanted}",
        )  # fmt: skip


def vocabulary(model: ModelSettings) -> int | None:
    """Number of token ids of a base on this machine; None where its config.json is not here or does not say."""
    found = config(model)
    if found is None:
        return None
    size = found.get("vocab_size", (found.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def config(model: ModelSettings) -> dict[str, Any] | None:
    """The content of a base's config.json; None where it is not on this machine. Raises InputError."""
    path = _config_file(model)
    return _read(path) if path is not None and path.is_file() else None


def tensors(model: ModelSettings) -> dict[str, checkpoint.Tensor] | None:
    """The tensors of a base on this machine by name, as the headers of its files have them; None where files are not
    here or cannot be read."""
    path = _config_file(model)
    if path is None or not path.is_file():
        return None
    try:
        return {
            name: tensor for file in checkpoint.files(path.parent) for name, tensor in checkpoint.header(file).items()
        }
    except InputError:
        return None


def _config_file(model: ModelSettings) -> Path | None:
    """The path of a base's config.json; None where it is on the hub and not in this machine's cache."""
    source = sources.base_of(model)
    return Path(model.model_name_or_path) / "config.json" if source is None else client.at_hand(source, "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON ({error})", where=str(path)) from None
    return found if isinstance(found, dict) else {}
