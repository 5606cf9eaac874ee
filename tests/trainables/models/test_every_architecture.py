"""Every causal language model of transformers that can be made tiny is accepted when it is saved completely."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from trainables.models import base, base_folder, inspecting
from trainables.settings import ModelSettings
from tuner.contract import InputError

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "lru_width"), 32)
SMALL |= dict.fromkeys(
    ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim"), 48
)  # fmt: skip
SMALL |= dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 2)
SMALL |= dict.fromkeys(
    ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads", "decoder_attention_heads"), 4
)
SMALL |= dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
SMALL |= dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_k", "moe_topk"), 2)
SMALL |= dict.fromkeys(("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rotary_dim"), 8)
SMALL |= dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16)
SMALL |= dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "encoder_layers"), 1)
SMALL |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
SMALL |= {"vocab_size": 128, "vocab_size_per_layer_input": 128, "hidden_size_per_layer_input": 8}
SMALL |= {"max_position_embeddings": 64, "n_positions": 64, "state_size": 8}
_LEFT_OUT: tuple[tuple[str, ...], ...] = ((), ("head_dim",), ("num_key_value_heads",), ("n_group", "topk_group"))
_LARGEST = 60_000_000
"""Most parameters of a model that is tested; configs that cannot be made small have more."""


def built(kind: str) -> Any:
    """Makes a random model of an architecture. Raises what its config raises for the sizes."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]
    known = {*inspect.signature(config.__init__).parameters, *getattr(config, "attribute_map", {})}
    known |= {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    failed: Exception | None = None
    for left_out in _LEFT_OUT:
        try:
            made = config(**{name: size for name, size in SMALL.items() if name in known and name not in left_out})
            for layers in (made, made.get_text_config()):
                if isinstance(types := getattr(layers, "layer_types", None), list):
                    layers.layer_types = types[: layers.num_hidden_layers]
            with torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(made).parameters())
            if size > _LARGEST:
                raise ValueError(f"{size:,} parameters")
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(made, attn_implementation="eager")
        except Exception as error:
            failed = error
    assert failed is not None
    raise failed


def alarms(place: Path) -> list[str]:
    """Why the inspection and the load refuse a base; empty where neither does."""
    settings = ModelSettings(model_name_or_path=str(place), attn_implementation="eager")
    found = []
    for look in (lambda: inspecting.inspect(settings, base_folder.check(settings)), lambda: base.load(settings)):
        try:
            look()
        except InputError as error:
            found.append(error.what)
    return [told for told in found if "no causal language model" not in told]


def test_no_false_alarm(tmp_path: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    tried, found = [], {}
    for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            built(kind).save_pretrained(tmp_path / kind)
        except Exception:  # cannot be built tiny, or not with these packages
            continue
        tried.append(kind)
        if told := alarms(tmp_path / kind):
            found[kind] = told
    print(f"{len(tried)} architectures of {len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}: {', '.join(tried)}")
    assert not found
    assert len(tried) > 100
