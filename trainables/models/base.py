"""Loading the base: precision, NF4, device."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from trainables.models import folder
from trainables.settings import NF4, ModelSettings
from tuner.contract import ALONE, Fault, Group, InputError, Reason

Model = Any


def device() -> torch.device:
    """This process's own GPU, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def dtype(model: ModelSettings) -> torch.dtype:
    """The precision of what is not quantized."""
    if model.dtype != "auto":
        return torch.bfloat16 if model.dtype == "bfloat16" else torch.float32
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def compute_dtype(quantization: NF4) -> torch.dtype:
    """The precision of products with 4-bit weights.

    A CPU without instructions for it takes its time over a product in bfloat16: 15 times as long as in float32 on one
    that has AVX2 and no more.
    """
    if quantization.compute_dtype != "auto":
        return torch.bfloat16 if quantization.compute_dtype == "bfloat16" else torch.float32
    native = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def load(model: ModelSettings, group: Group = ALONE) -> Model:
    """The base on its device, frozen, in evaluation mode. Safetensors only; remote code only if asked for.

    group: the processes that train on it; each loads its own. Where they are to share it out, it waits in the host's
    memory and goes to the GPU a layer at a time; NF4 has a quarter of the size and is made where it is used.
    """
    place = folder.check(model)
    if torch.cuda.device_count() > 1 and group.size == 1:
        raise Fault(Reason.CONFIG, f"the worker sees {torch.cuda.device_count()} GPUs, a trial trains on one",
                    "set scheduler.gpus_per_trial to 1, or CUDA_VISIBLE_DEVICES")  # fmt: skip
    waits = group.shares_base and model.quantization.kind == "none"
    try:
        base = transformers.AutoModelForCausalLM.from_pretrained(
            str(place),  # and not the hub id: the libraries would ask the hub, cached or not
            dtype=dtype(model),
            quantization_config=_quantization(model, group),
            device_map=None if waits else {"": str(device())},
            attn_implementation=model.attn_implementation,
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        where = model.model_name_or_path
        raise InputError(message, where=where, expected="a causal language model with safetensors weights") from error
    # PEFT writes this name into adapters: the one that others know the base by
    base.name_or_path = base.config.name_or_path = model.model_name_or_path
    base.requires_grad_(False)
    _keep_4bit_trainable(base)
    return base.eval()


def _keep_4bit_trainable(base: Model) -> None:
    """Forbids bitsandbytes to repack 4-bit weights for inference.

    On CPUs with AVX512-BF16 the first forward in evaluation mode repacks every weight for a kernel without a backward
    pass, and leaves it so: training after the first evaluation would go on without the gradient of all lower layers.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _quantization(model: ModelSettings, group: Group) -> Any:
    chosen = model.quantization
    if chosen.kind == "none":
        return None
    compute = compute_dtype(chosen)
    # FSDP shares out parameters of one floating type; bytes would stay whole on every GPU
    storage = {"bnb_4bit_quant_storage": compute} if group.shares_base else {}
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=chosen.double_quant,
        bnb_4bit_compute_dtype=compute,
        **storage,
    )
