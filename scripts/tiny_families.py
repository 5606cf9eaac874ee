"""Makes tiny random models of the families that transformers has; `bench_families.py` uses it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

FAMILIES = (
    "llama", "qwen2", "qwen3", "mistral", "ministral", "ministral3", "gemma", "gemma2", "gemma3_text", "gemma3n_text",
    "gemma4_text", "vaultgemma", "phi", "phi3", "phimoe", "gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode",
    "codegen", "opt", "bloom", "mpt", "falcon", "stablelm", "starcoder2", "olmo", "olmo2", "olmo3", "olmoe",
    "flex_olmo", "granite", "granitemoe", "granitemoeshared", "granitemoehybrid", "cohere", "cohere2", "glm", "glm4",
    "glm4_moe", "glm4_moe_lite", "smollm3", "apertus", "arcee", "helium", "nemotron", "hunyuan_v1_dense",
    "hunyuan_v1_moe", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "seed_oss", "minicpm3", "bitnet", "nanochat",
    "persimmon", "cwm", "jais2", "diffllama", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_text",
    "qwen3_5_moe_text", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "gpt_oss", "minimax", "minimax_m2",
    "mistral4", "solar_open", "afmoe", "lfm2", "lfm2_moe", "lfm3", "recurrent_gemma", "jamba", "bamba", "zamba2",
    "mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h", "olmo_hybrid", "mimo_v2_flash", "doge", "llama4_text",
    "kimi_linear", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "gemma3",
    "gemma4", "mistral3", "smolvlm", "idefics3", "llava", "llava_next", "llava_onevision", "internvl", "aya_vision",
    "cohere2_vision", "glm4v", "glm4v_moe", "mllama", "llama4", "paligemma", "lfm2_vl",
)  # fmt: skip
"""By transformers' model type. Those at the end take images too."""

_HEADS, _LAYERS = 4, 2
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "lru_width", "embed_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "depth"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "mamba_n_heads"), _HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "v_head_dim", "mamba_d_head", "global_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "mamba_n_groups"), 1),
    **dict.fromkeys(("state_size", "mamba_d_state", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("pad_token_id",), 1),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), 0),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 2048),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "sliding_window"), 512),
    **dict.fromkeys(("image_size", "mamba_chunk_size", "chunk_size"), 16),
    "patch_size": 4,
    "out_hidden_size": 64,
}
"""By name in any config: a small size."""
NOT_GIVEN = object()
"""In the place of a size: the family's own default."""
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 16}
_MIXED = ["linear_attention", "full_attention"]
_MLA = {"head_dim": NOT_GIVEN, "num_key_value_heads": _HEADS}
_LINEAR = {
    "layer_types": _MIXED, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}  # fmt: skip
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
_EYES = {
    "depth": _LAYERS, "hidden_size": 32, "embed_dim": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 4,
}  # fmt: skip
_SEEN = {**_EYES, "num_position_embeddings": 16}
_WINDOWS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
_GEMMA3N = {
    "num_hidden_layers": 4, "num_kv_shared_layers": 2, "laurel_rank": 16, "layer_types": _WINDOWS,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 512},
    "gemma3n_text": _GEMMA3N,
    "gemma4_text": {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": _WINDOWS},
    "gemma4": {"text_config": {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": _WINDOWS}},
    "granitemoeshared": {"shared_intermediate_size": 64},
    "granitemoehybrid": {**_MAMBA, "layer_types": _MIXED, "shared_intermediate_size": 64},
    "minicpm3": _MLA,
    "deepseek_v2": {**_MLA, "topk_method": "greedy"},
    "deepseek_v3": _MLA,
    "deepseek_v32": {**_MLA, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 64},
    "glm4_moe_lite": _MLA,
    "mistral4": _MLA,
    "dots1": {"n_shared_experts": 1},
    "qwen3_next": _LINEAR,
    "qwen3_5_text": {**_LINEAR, "rope_parameters": _MROPE},
    "qwen3_5_moe_text": {**_LINEAR, "rope_parameters": _MROPE},
    "minimax": {"layer_types": _MIXED, "block_size": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 512},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "zamba2": {
        "mamba_ngroups": 1,
        "mamba_d_state": 16,
        "n_mamba_heads": 4,
        "use_mem_rope": False,
        "num_mem_blocks": 1,
        "adapter_rank": 8,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "mamba2": {"num_heads": 4, "head_dim": 32, "n_groups": 1, "state_size": 16},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 128},
    "nemotron_h": {
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "n_groups": 1,
        "ssm_state_size": 16,
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "moe_shared_expert_intermediate_size": 32,
    },
    "qwen2_vl": {"text_config": {"rope_parameters": _MROPE}, "vision_config": {**_EYES, "hidden_size": 64}},
    "qwen2_5_vl": {
        "text_config": {"rope_parameters": _MROPE},
        "vision_config": {**_EYES, "fullatt_block_indexes": [1], "window_size": 16},
    },
    "qwen3_vl": {
        "text_config": {"rope_parameters": _MROPE},
        "vision_config": {**_SEEN, "deepstack_visual_indexes": [0]},
    },
    "qwen3_vl_moe": {
        "text_config": {"rope_parameters": _MROPE},
        "vision_config": {**_SEEN, "deepstack_visual_indexes": [0]},
    },
    "qwen3_5": {"text_config": {**_LINEAR, "rope_parameters": _MROPE}, "vision_config": _SEEN},
    "qwen3_5_moe": {"text_config": {**_LINEAR, "rope_parameters": _MROPE}, "vision_config": _SEEN},
    "glm4v": {"text_config": {"rope_parameters": {**_MROPE, "partial_rotary_factor": 1.0}}, "vision_config": _EYES},
    "glm4v_moe": {"text_config": {"rope_parameters": {**_MROPE, "partial_rotary_factor": 1.0}}, "vision_config": _EYES},
    "mllama": {
        "text_config": {"num_hidden_layers": 3, "cross_attention_layers": [1]},
        "vision_config": {
            "num_global_layers": 1,
            "attention_heads": 4,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 128,
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
        },
    },
    "llama4": {
        "vision_config": {"vision_output_dim": 64, "projector_input_dim": 64, "projector_output_dim": 64},
    },
    "kimi_linear": {
        **_MLA,
        "linear_head_dim": 16,
        "linear_num_heads": 4,
        "layer_types": _MIXED,
        "mlp_layer_types": ["dense", "sparse"],
    },
    "paligemma": {"projection_dim": 64},
    "cohere2_vision": {"alignment_intermediate_size": 64},
    "lfm2_vl": {"text_config": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}},
}
"""By model type: sizes of its own."""
_LEFT_OUT: tuple[tuple[str, ...], ...] = (
    (), ("head_dim",), ("num_key_value_heads",), ("n_group", "topk_group"), ("num_hidden_layers",),
)  # fmt: skip
"""Names that some families do not take at these sizes; tried in turn."""
_LARGEST = 30_000_000
"""Parameters of a model that is tried."""


def built(family: str, to: Path) -> None:
    """Saves a random model of a family with the tokenizer of the embedded example. Raises what its config raises."""
    import torch
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    failed: Exception | None = None
    for left_out in _LEFT_OUT:
        try:
            config = CONFIG_MAPPING[family](**_sizes(CONFIG_MAPPING[family], left_out, OWN.get(family, {})))
            for part in (config, config.get_text_config()):
                types = getattr(part, "layer_types", None)
                if isinstance(types, list) and len(types) > part.num_hidden_layers:
                    part.layer_types = types[: part.num_hidden_layers]
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in _class_of(config)(config).parameters())
            if size > _LARGEST:
                raise ValueError(f"{size:,} parameters")
            torch.manual_seed(0)
            model = _class_of(config)(config).to(torch.float32)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if parameter.ndim >= 2:
                        parameter.mul_(3.0)  # so that a difference in any layer shows in the loss
                    elif name.endswith("_scale") and not parameter.any():
                        parameter.fill_(1.0)  # or what is multiplied by it would never learn
            model.save_pretrained(to)
            AutoTokenizer.from_pretrained(str(ROOT / "tuner" / "demo" / "base")).save_pretrained(to)
            return
        except Exception as error:
            failed = error
    assert failed is not None
    raise failed


def _class_of(config: Any) -> Any:
    """The class of the family's checkpoints: for images and text where there is one, else causal."""
    import transformers

    for auto in (transformers.AutoModelForImageTextToText, transformers.AutoModelForCausalLM):
        if type(config) in auto._model_mapping:
            found = auto._model_mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise ValueError("no class for text")


def _sizes(config: Any, left_out: tuple[str, ...], own: Mapping[str, Any]) -> dict[str, Any]:
    """Small sizes for a config class and for the configs in it."""
    known = {*inspect.signature(config.__init__).parameters, *getattr(config, "attribute_map", {})}
    known |= {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    sizes = {name: size for name, size in SMALL.items() if name in known and name not in left_out}
    tokens = sorted(name for name in known if name.endswith(("_token_id", "_token_index")) and name not in SMALL)
    sizes |= {name: 2047 - place for place, name in enumerate(tokens)}
    parts = getattr(config, "sub_configs", {})
    if parts:
        given = config()
        for name in parts:
            part = type(getattr(given, name, None))
            if part is not type(None):
                sizes[name] = _sizes(part, left_out, own.get(name, {}))
    sizes |= {name: value for name, value in own.items() if name not in parts}
    return {name: value for name, value in sizes.items() if value is not NOT_GIVEN}
