"""Loads the base: precision, NF4, device."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from trainables.models import base_folder, loading
from trainables.models.causality import require_causal
from trainables.models.completeness import require_complete
from trainables.settings import NF4, ModelSettings
from tuner.contract import ALONE, Fault, Group, InputError, Reason

Model = Any


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def dtype(model: ModelSettings) -> torch.dtype:
    """The dtype of weights that are not quantized."""
    if model.dtype != "auto":
        return torch.bfloat16 if model.dtype == "bfloat16" else torch.float32
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def compute_dtype(quantization: NF4) -> torch.dtype:
    """The dtype of products with 4-bit weights.

    A CPU without bfloat16 instructions is slow at it: with AVX2 only, a product takes 15 times as long as in float32.
    """
    if quantization.compute_dtype != "auto":
        return torch.bfloat16 if quantization.compute_dtype == "bfloat16" else torch.float32
    native = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def computes_in_bf16(model: Model) -> bool:
    """Whether a trial on a GPU trains under bf16 autocast, by the compute dtype of a 4-bit base or the base's dtype."""
    quantized = getattr(model.config, "quantization_config", None)
    compute = getattr(quantized, "bnb_4bit_compute_dtype", None)
    return compute is torch.bfloat16 or (quantized is None and model.dtype is torch.bfloat16)


def load(model: ModelSettings, group: Group = ALONE) -> Model:
    """Loads the base: on its device, frozen, in evaluation mode. Reads safetensors only.

    Code that comes with the base runs only if the settings allow it. group: the processes that train on it; each loads
    its own. With fsdp it is loaded into the host's memory, and FSDP moves it to the GPU a layer at a time; in NF4, a
    quarter of the size, it is loaded onto the GPU.

    Raises InputError where it cannot be a base, and Fault where this process sees more than one GPU without a group.
    """
    place = base_folder.check(model)
    if torch.cuda.device_count() > 1 and group.size == 1:
        raise Fault(Reason.CONFIG, f"the worker sees {torch.cuda.device_count()} GPUs, a trial trains on one",
                    "set resources.gpus_per_trial to 1, or CUDA_VISIBLE_DEVICES")  # fmt: skip
    stays_on_host = group.shares_base and model.quantization.kind == "none"
    where, config = model.model_name_or_path, base_folder.config(model) or {}
    made = loading.class_of(loading.config_of(model, place), model)
    with loading.input_errors(where):
        base, found = loading.reported(
            made.from_pretrained,
            ", ".join(config.get("architectures") or ["causal language model"]),
            # not the hub id: the libraries would query the hub even if it is cached
            pretrained_model_name_or_path=str(place),
            dtype=dtype(model),
            device_map=None if stays_on_host else {"": str(device())},
            attn_implementation=model.attention,
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
            **_quantization(model, group),
        )
    require_complete(found, config, where)
    loading.require_trainable(base, where)
    # PEFT writes this name into adapters
    base.name_or_path = base.config.name_or_path = where
    base.requires_grad_(False)
    if group.leads:  # all processes load the same weights
        _require_finite(base, where)
    _prepare_4bit(base, model)
    base.eval()
    if not stays_on_host:
        require_causal(base, where)
    return base


def _require_finite(base: Model, where: str) -> None:
    """Raises InputError where a weight is NaN or infinite: every loss would be NaN.

    Takes one pass over the weights and copies none. NF4 weights are bytes, so their scales are checked.
    """
    for name, parameter in base.named_parameters():
        state = getattr(parameter, "quant_state", None)
        values = parameter if state is None else (state.offset if state.nested else state.absmax)
        if not values.is_floating_point() or not values.numel() or values.element_size() == 1:
            continue
        low, high = values.detach().aminmax() if values.dim() else (values, values)
        if not (torch.isfinite(low) & torch.isfinite(high)):
            raise InputError(f"the weight {name} has values that are no finite numbers", where=where,
                             expected="a base whose weights are numbers",
                             remedy="copy or download it again; trained in float16, it may have overflowed",
                             )  # fmt: skip


def _prepare_4bit(base: Model, model: ModelSettings) -> None:
    """Sets the compute dtype of a base that is stored in 4 bits, and keeps bitsandbytes from repacking its weights.

    On CPUs with AVX512-BF16 the first forward in evaluation mode repacks every weight for a kernel without a backward,
    and does not undo it: after the first evaluation, all lower layers would train without a gradient.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if type(module).__name__ == "Linear4bit" and isinstance(model.quantization, NF4):
            module.compute_dtype, module.compute_type_is_set = compute_dtype(model.quantization), True


def _quantization(model: ModelSettings, group: Group) -> dict[str, Any]:
    """The arguments of `from_pretrained` that quantize; none where the settings do not quantize.

    `quantization_config=None` would make transformers ignore the one in config.json, and read 8-bit weights without
    their scales.
    """
    chosen = model.quantization
    if chosen.kind == "none":
        return {}
    compute = compute_dtype(chosen)
    # FSDP shards parameters of one floating dtype; bytes would stay unsharded on every GPU
    storage = {"bnb_4bit_quant_storage": compute} if group.shares_base else {}
    how = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=chosen.double_quant,
        bnb_4bit_compute_dtype=compute,
        **storage,
    )
    return {"quantization_config": how}
