"""Describes a base before anything trains: its parts, what adapters it can get, and what they take.

The model is made on the meta device, from its config: no weights are read, and a base of 70 GB takes as long as one of
1 GB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers.utils import logging as transformers_logging

from trainables.models import loading, parts
from trainables.models.counting import human, size
from trainables.models.lora import lora_config
from trainables.settings import ModelSettings, Settings
from tuner.contract import Fault

TARGETS = ("all-linear", "attention", "mlp")
"""The values of `target_modules` that are words."""
_WITH_VISION = "with vision"
"""The name of all-linear with `model.vision: adapted`, which is told of a base that takes images too."""
RANKS = (8, 16, 64)
"""Ranks of which the share of trainable parameters is told."""


@dataclass(frozen=True)
class Adapted:
    """What an adapter with a value of `target_modules` sits on."""

    modules: int
    """Layers, and tensors of experts, that get an adapter."""
    weights: int
    """Parameters of the base in these."""
    per_rank: float
    """Trainable parameters for each rank."""
    parts: Mapping[str, Mapping[str, int]]
    """Trainable parameters of an adapter of rank 8, by tower and kind."""
    refused: str = ""
    """Why it cannot be used; "" where it can."""


@dataclass(frozen=True)
class Description:
    """A base, without its weights."""

    kind: str
    """The name of the class that it is loaded as."""
    total: int
    """Parameters."""
    parts: Mapping[str, int]
    """Parameters by part ("language: attention")."""
    targets: Mapping[str, Adapted]
    """By value of `target_modules`; with `model.vision: adapted` too, where the base takes images."""
    packs: str | None
    """Why trials cannot share the base, as far as that is seen without weights; None where nothing is seen."""


def describe(settings: Settings, folder: Path, packs: Callable[[Any], str | None]) -> Description:
    """Describes the base whose config.json is in `folder`. Raises InputError for one that transformers does not know.

    packs: says of a base without weights why it cannot be packed. It may change the base.
    """
    made = empty(settings.model, folder)
    total = sum(size(parameter) for parameter in made.parameters())
    found = {target: _adapted(settings, folder, target) for target in TARGETS}
    if settings.model.vision == "frozen" and parts.Tower.VISION in parts.towers(parts.of(made)):
        model = settings.model.model_copy(update={"vision": "adapted"})
        found[_WITH_VISION] = _adapted(settings.model_copy(update={"model": model}), folder, TARGETS[0])
    return Description(type(made).__name__, total, dict(_by_part(made)), found, packs(made))


def empty(model: ModelSettings, folder: Path) -> Any:
    """The base on the meta device: names and shapes without values. Raises InputError."""
    transformers_logging.set_verbosity_error()
    config = loading.config_of(model, folder)
    kind = loading.class_of(config, model)
    with loading.input_errors(model.model_name_or_path), torch.device("meta"):
        make = getattr(kind, "_from_config", None) or kind.from_config
        made = make(config, attn_implementation=model.attention)
    made.requires_grad_(False)
    return made


def _by_part(model: Any) -> Iterator[tuple[str, int]]:
    """Parameters by part, the towers' parts together, in the order of `parts`. Tied tensors count once."""
    found, sums = parts.of(model), Counter[parts.Part]()
    words = model.get_input_embeddings().weight
    embedded = 0
    for name, parameter in model.named_parameters():
        if parameter is words or name.rpartition(".")[0] == _head(model):
            embedded += size(parameter)
        else:
            sums[found[name.rpartition(".")[0]]] += size(parameter)
    for tower in parts.towers(found):
        for kind in parts.Kind:
            if number := sums[parts.Part(tower, kind)]:
                yield str(parts.Part(tower, kind)), number
        if tower is parts.Tower.LANGUAGE:
            yield f"{tower}: embeddings and output", embedded


def _head(model: Any) -> str | None:
    head = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is head), None)


def _adapted(settings: Settings, folder: Path, target: str) -> Adapted:
    """What an adapter of rank 8 on `target` sits on."""
    train = settings.train.model_copy(update={"target_modules": target, "lora_r": RANKS[0], "use_dora": False,
                                              "init_lora_weights": "true"})  # fmt: skip
    chosen = settings.model_copy(update={"train": train})
    made = empty(settings.model, folder)
    try:
        model = get_peft_model(made, lora_config(chosen, made), low_cpu_mem_usage=True)
    except Fault as fault:
        return Adapted(0, 0, 0.0, {}, fault.message)
    except (ValueError, NotImplementedError) as error:  # PEFT's, of layers that take no adapter
        return Adapted(0, 0, 0.0, {}, str(error).strip().splitlines()[0])
    trained = sum(size(parameter) for parameter in model.parameters() if parameter.requires_grad)
    layers = [module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")]
    weights = sum(_own_weights(layer) for layer in layers)
    return Adapted(len(layers), weights, trained / RANKS[0], parts.trained(model.get_base_model()))


def _own_weights(layer: Any) -> int:
    """Parameters of the base that an adapted layer has: those of one tensor, where it is on a tensor of experts."""
    name = getattr(layer, "parameter_name", None)
    inner = layer.get_base_layer()
    held = getattr(inner, name or "weight", None)
    return size(held) if held is not None else 0


def share(adapted: Adapted, rank: int, total: int) -> str:
    """Trainable parameters of an adapter of `rank`, and their share of all: "4.2M, 0.3%"."""
    number = int(adapted.per_rank * rank)
    return f"{human(number)}, {100 * number / (total + number):.2g}%" if total else human(number)
