"""Tells in a few words what a base is, by its config and the headers of its files. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

from trainables.models import base_folder
from trainables.models.checkpoint import Tensor
from trainables.models.counting import human
from trainables.models.experts import experts_of
from trainables.settings import ModelSettings

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_POSITIONS = ("max_position_embeddings", "n_positions")
_KINDS = {"full_attention": "full attention", "linear_attention": "linear attention",
          "sliding_attention": "attention in a window"}  # fmt: skip
"""Words for transformers' names of layer types."""
_BYTES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
"""Words for safetensors' names of dtypes."""


def short(model: ModelSettings) -> str:
    """The base in a sentence; "" where its config.json is not on this machine. Raises InputError."""
    config = base_folder.config(model)
    if config is None:
        return ""
    told = [_class(config), *_stored(base_folder.tensors(model)), *layers(config)]
    most = positions(config)
    return ", ".join([*told, *([f"{most:,} positions"] if most else [])])


def layers(config: Mapping[str, Any]) -> list[str]:
    """The layers of a base, and their kinds and experts, in words. config: the content of config.json."""
    text = text_of(config)
    number = next((text[key] for key in _LAYERS if isinstance(text.get(key), int)), 0)
    if not number:
        return []
    kinds = Counter(kind for kind in text.get("layer_types") or () if isinstance(kind, str))
    mixed = ", ".join(f"{count} of {_KINDS.get(kind, kind)}" for kind, count in kinds.items()) if len(kinds) > 1 else ""
    told = [f"{number} layers" + (f" ({mixed})" if mixed else "")]
    try:
        experts = experts_of(text, number)
    except (KeyError, TypeError, ValueError):
        return [*told, "experts of a size that config.json does not say"]
    if experts is not None:
        told.append(f"{experts.number} experts in {experts.layers} of them, {experts.chosen} for a token")
    return told


def positions(config: Mapping[str, Any]) -> int | None:
    """Positions that config.json names; None where it names none."""
    text = text_of(config)
    return next((text[key] for key in _POSITIONS if isinstance(text.get(key), int)), None)


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the part that reads tokens."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _class(config: Mapping[str, Any]) -> str:
    said = config.get("architectures")
    if isinstance(said, list) and said and isinstance(said[0], str):
        return said[0]
    return f"a base of type {config.get('model_type') or 'unknown'}"


def _stored(tensors: Mapping[str, Tensor] | None) -> list[str]:
    """Parameters and bytes of a checkpoint; nothing where it is not here."""
    if not tensors:
        return []
    numbers = sum(prod(tensor.shape) for tensor in tensors.values())
    dtypes = Counter[str]()
    for tensor in tensors.values():
        dtypes[tensor.dtype] += tensor.end - tensor.begin
    dtype, _ = dtypes.most_common(1)[0]
    return [f"{human(numbers)} parameters, stored in {_BYTES.get(dtype, dtype)}"]
