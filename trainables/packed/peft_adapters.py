"""A slot's adapter as PEFT makes it under the trial's seed, and as PEFT's files."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from trainables.models.adapter_files import replace_adapter
from trainables.models.counting import Count, count
from trainables.models.lora import lora_config
from trainables.models.resident import Resident
from trainables.packed.stack import Pair
from trainables.settings import Settings
from tuner.contract import Reason, Unpackable

_PREFIX = "base_model.model."
_KEPT_BYTES = 2 << 30
"""Of fresh adapters that are kept on the host: eight of rank 64 over a 1.5B base."""


@dataclass(frozen=True)
class Made:
    """What PEFT made of a trial's settings: weights and scale by module, and the config as it will be saved."""

    config: Any
    adapter: dict[str, Pair]
    scales: dict[str, float]
    count: Count


class Maker:
    """Lets PEFT build adapters as SFTTrainer does, reads them out, and takes them away again.

    The weights depend on the order in which PEFT visits the modules and on all that it draws on the way, so drawing
    them again here would be exact until PEFT's next version. On the 196 layers of a 1.5B base that takes 0.35 s, while
    the neighbours wait; but trials share their seed, and those that share rank and targets too begin alike.
    """

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._kept: OrderedDict[str, Made] = OrderedDict()
        self._bytes = 0

    def make(self, settings: Settings, seed: int) -> Made:
        """The adapter of a trial before its first step."""
        config = lora_config(settings, self._resident.model)
        key = _key(config, seed)
        made = self._kept.get(key) or self._keep(key, self._build(config, seed))
        self._kept.move_to_end(key)
        # PEFT has filled in the names of the modules in the config that it was given
        return replace(made, config=replace(made.config, lora_dropout=config.lora_dropout))

    def _build(self, config: Any, seed: int) -> Made:
        from peft import get_peft_model

        try:
            set_seed(seed)
            return _read(get_peft_model(self._resident.model, config))
        finally:
            self._resident.restore()

    def _keep(self, key: str, made: Made) -> Made:
        self._kept[key] = made
        self._bytes += _size(made)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return made


def _key(config: Any, seed: int) -> str:
    """All that the weights and their scales depend on, and so all but the dropout."""
    facts = {**config.to_dict(), "lora_dropout": None, "seed": seed}
    facts = {name: sorted(value) if isinstance(value, set) else value for name, value in facts.items()}
    return json.dumps(facts, sort_keys=True, default=repr)


def _size(made: Made) -> int:
    return sum(tensor.nbytes for pair in made.adapter.values() for tensor in pair)


def _read(model: Any) -> Made:
    adapter, scales = {}, {}
    for name, layer in model.named_modules():
        if not getattr(layer, "lora_A", None):
            continue
        if layer.lora_variant:
            raise _unpackable(f"the adapter on {name} is of a kind of its own")
        name = name.removeprefix(_PREFIX)
        weights = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        adapter[name] = weights[0].detach().cpu(), weights[1].detach().cpu()
        scales[name] = float(layer.scaling["default"])
    more = sum(parameter.requires_grad for parameter in model.parameters()) - 2 * len(adapter)
    if more:
        raise _unpackable(f"{more} trainable tensors are no A or B of a linear layer")
    return Made(model.peft_config["default"], adapter, scales, count(model))


def _unpackable(why: str) -> Unpackable:
    return Unpackable(Reason.CONFIG, f"{why} and cannot be packed", "set resources.trials_per_gpu to 1")


def save(made: Made, adapter: Mapping[str, Pair], folder: Path, base: Any) -> Path:
    """Writes `adapter` to `<folder>/adapter`: the files PeftModel.save_pretrained writes."""
    from safetensors.torch import save_file

    tensors = {}
    for name, pair in adapter.items():
        for letter, tensor in zip("AB", pair, strict=True):
            tensors[f"{_PREFIX}{name}.lora_{letter}.weight"] = tensor.detach().contiguous()
    config = made.config
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
    """The precision of a solo run's adapter: SFTTrainer keeps it in bf16 over a quantized base, PEFT in fp32 else."""
    quantized = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    return torch.bfloat16 if quantized else torch.float32
