"""A trial's adapter as PEFT initialises it under the trial's seed, and as PEFT's files."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from trainables.models import parts
from trainables.models.adapter_files import replace_adapter
from trainables.models.counting import Count, count
from trainables.models.lora import lora_config
from trainables.models.resident import Resident
from trainables.packed.stack import Pair
from trainables.settings import Settings
from tuner.contract import Reason, Unpackable

_PREFIX = "base_model.model."
_KEPT_BYTES = 2 << 30
"""Most bytes of initial adapters kept on the host: those of eight adapters of rank 64 over a 1.5B base."""


@dataclass(frozen=True)
class InitialAdapter:
    """A trial's adapter before its first step, as PEFT initialises it."""

    config: Any
    """The `peft.LoraConfig`, as it will be saved."""
    weights: dict[str, Pair]
    """By module name: A [rank, in] and B [out, rank] on the host, in the adapter's dtype."""
    scales: dict[str, float]
    """By module name: the factor of B A."""
    count: Count
    """Parameters of base and adapter."""
    modules_of: dict[str, list[str]]
    """By part of the model: the names of the modules in it that have an adapter."""
    parts: str
    """Which parts have an adapter, in words."""


class AdapterInitializer:
    """Lets PEFT put adapters on the base as SFTTrainer does, copies their weights, and removes them again.

    The weights depend on the order in which PEFT visits the modules and on all random numbers that it draws, so a
    reimplementation would be exact only until PEFT's next version. On the 196 layers of a 1.5B base PEFT takes 0.35 s,
    while the neighbours wait. Trials of a search share their seed, so those with the same rank and targets begin with
    the same weights, which are kept here.
    """

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._kept: OrderedDict[str, InitialAdapter] = OrderedDict()
        """By `_key`, in the order of their last use."""
        self._bytes = 0
        """Bytes of all that are kept."""

    def initialize(self, settings: Settings, seed: int) -> InitialAdapter:
        """The adapter of a trial before its first step.

        Raises Unpackable where it has other tensors than A and B of linear layers.
        """
        config = lora_config(settings, self._resident.model)
        key = _key(config, seed)
        initial = self._kept.get(key) or self._keep(key, self._build(config, seed))
        self._kept.move_to_end(key)
        # The kept config, because PEFT has filled in the modules' names there
        return replace(initial, config=replace(initial.config, lora_dropout=config.lora_dropout))

    def _build(self, config: Any, seed: int) -> InitialAdapter:
        """Has PEFT make the adapter, and restores the base."""
        from peft import get_peft_model

        try:
            set_seed(seed)
            return _read(get_peft_model(self._resident.model, config))
        finally:
            self._resident.restore()

    def _keep(self, key: str, initial: InitialAdapter) -> InitialAdapter:
        """Keeps an adapter, and drops those that were used longest ago where they are too many bytes."""
        self._kept[key] = initial
        self._bytes += _size(initial)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return initial


def _key(config: Any, seed: int) -> str:
    """All that weights and scales depend on, as text: the seed and the config without the dropout."""
    facts = {**config.to_dict(), "lora_dropout": None, "seed": seed}
    facts = {name: sorted(value) if isinstance(value, set) else value for name, value in facts.items()}
    return json.dumps(facts, sort_keys=True, default=repr)


def _size(initial: InitialAdapter) -> int:
    return sum(tensor.nbytes for pair in initial.weights.values() for tensor in pair)


def _read(model: Any) -> InitialAdapter:
    """The adapter of a `PeftModel`, copied to the host. Raises Unpackable."""
    adapter, scales, found = {}, {}, parts.of(model)
    modules_of: dict[str, list[str]] = {}
    for name, layer in model.named_modules():
        if not getattr(layer, "lora_A", None):
            continue
        if layer.lora_variant:
            raise _unpackable(f"the adapter on {name} is of a kind of its own")
        part, name = str(found[name]), name.removeprefix(_PREFIX)
        modules_of.setdefault(part, []).append(name)
        weights = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        adapter[name] = weights[0].detach().cpu(), weights[1].detach().cpu()
        scales[name] = float(layer.scaling["default"])
    more = sum(parameter.requires_grad for parameter in model.parameters()) - 2 * len(adapter)
    if more:
        raise _unpackable(f"{more} trainable tensors are no A or B of a linear layer")
    return InitialAdapter(
        model.peft_config["default"], adapter, scales, count(model), modules_of, parts.told(parts.trained(model))
    )


def _unpackable(why: str) -> Unpackable:
    return Unpackable(Reason.CONFIG, f"{why} and cannot be packed", "set resources.trials_per_gpu to 1")


def save(initial: InitialAdapter, adapter: Mapping[str, Pair], folder: Path, base: Any) -> Path:
    """Writes `<folder>/adapter` with the files of PeftModel.save_pretrained; gives that folder. Raises OSError.

    adapter: by module name, A [rank, in] and B [out, rank] on the host. base: the model, whose name is saved too.
    """
    from safetensors.torch import save_file

    tensors = {}
    for name, pair in adapter.items():
        for letter, tensor in zip("AB", pair, strict=True):
            tensors[f"{_PREFIX}{name}.lora_{letter}.weight"] = tensor.detach().contiguous()
    config = initial.config
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = getattr(base, "name_or_path", None)

    def write(beside: Path) -> None:
        beside.mkdir(parents=True)
        save_file(tensors, str(beside / "adapter_model.safetensors"), metadata={"format": "pt"})
        config.inference_mode = True
        config.save_pretrained(str(beside))
        config.inference_mode = False

    return replace_adapter(folder, write)


def state_dtype(model: Any) -> torch.dtype:
    """The dtype of a solo run's adapter: bf16 over a quantized base, by SFTTrainer; else fp32, by PEFT."""
    quantized = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    return torch.bfloat16 if quantized else torch.float32
