"""A slot's adapter as PEFT makes it under the trial's seed, and as PEFT's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from trainables.hf.saving import replace_adapter
from trainables.models.adapters import lora_config
from trainables.models.counting import Count, count
from trainables.models.resident import Resident
from trainables.packed.stack import Pair
from trainables.settings import Settings
from tuner.contract import Fault, Reason

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Made:
    """What PEFT made of a trial's settings: weights and scale by module, and the config as it will be saved."""

    config: Any
    adapter: dict[str, Pair]
    scales: dict[str, float]
    count: Count


def make(settings: Settings, resident: Resident, seed: int) -> Made:
    """Lets PEFT build the adapter as SFTTrainer does, reads it out, and takes it away again.

    The weights depend on the order in which PEFT visits the modules and on all that it draws on the way, so drawing
    them again here would be exact until PEFT's next version.
    """
    from peft import get_peft_model

    config = lora_config(settings, resident.model)
    try:
        set_seed(seed)
        return _read(get_peft_model(resident.model, config))
    finally:
        resident.restore()


def _read(model: Any) -> Made:
    adapter, scales = {}, {}
    for name, layer in model.named_modules():
        if not getattr(layer, "lora_A", None):
            continue
        if layer.lora_variant:
            raise _unpackable(f"the adapter on {name} is of a kind of its own")
        name = name.removeprefix(_PREFIX)
        adapter[name] = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
        scales[name] = float(layer.scaling["default"])
    more = sum(parameter.requires_grad for parameter in model.parameters()) - 2 * len(adapter)
    if more:
        raise _unpackable(f"{more} trainable tensors are no A or B of a linear layer")
    return Made(model.peft_config["default"], adapter, scales, count(model))


def _unpackable(why: str) -> Fault:
    return Fault(Reason.CONFIG, f"{why} and cannot be packed", "set scheduler.trials_per_gpu to 1")


def save(made: Made, adapter: Mapping[str, Pair], folder: Path, base: Any) -> Path:
    """Writes `adapter` to `<folder>/adapter`: the files PeftModel.save_pretrained writes."""
    from safetensors.torch import save_file

    tensors = {}
    for name, pair in adapter.items():
        for letter, tensor in zip("AB", pair, strict=True):
            tensors[f"{_PREFIX}{name}.lora_{letter}.weight"] = tensor.detach().to("cpu", copy=True).contiguous()
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
