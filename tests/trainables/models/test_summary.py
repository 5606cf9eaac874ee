"""A base in a sentence, from its config and the headers of its files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from trainables.models import summary
from trainables.settings import ModelSettings

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 24, "max_position_embeddings": 4096}
QWEN3_MOE = {"architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 48, "num_experts": 128,
             "num_experts_per_tok": 8, "moe_intermediate_size": 768, "hidden_size": 2048}  # fmt: skip
HYBRID = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": {
    "num_hidden_layers": 4, "max_position_embeddings": 262144,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"]}}  # fmt: skip
OLD = {"model_type": "gpt2", "n_layer": 12, "n_positions": 1024}
VAGUE = {**QWEN3_MOE, "num_experts_per_tok": None}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (LLAMA, "LlamaForCausalLM, 24 layers, 4,096 positions"),
        (QWEN3_MOE, "Qwen3MoeForCausalLM, 48 layers, 128 experts in 48 of them, 8 for a token"),
        (HYBRID, "Qwen3_5ForConditionalGeneration, 4 layers (3 of linear attention, 1 of full attention), "
                 "262,144 positions"),
        (OLD, "a base of type gpt2, 12 layers, 1,024 positions"),
        (VAGUE, "Qwen3MoeForCausalLM, 48 layers, experts of a size that config.json does not say"),
        ({}, "a base of type unknown"),
    ],
)  # fmt: skip
def test_a_config(config: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert summary.short(ModelSettings(model_name_or_path=str(tmp_path))) == told


def test_parameters_are_those_of_the_headers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    said = {"a": {"dtype": "BF16", "shape": [1000, 2], "data_offsets": [0, 4000]},
            "b": {"dtype": "F32", "shape": [3], "data_offsets": [4000, 4012]}}  # fmt: skip
    text = json.dumps(said).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4012))
    found = summary.short(ModelSettings(model_name_or_path=str(tmp_path)))
    assert found == "LlamaForCausalLM, 2.0K parameters, stored in bfloat16, 24 layers, 4,096 positions"


def test_a_base_that_is_not_here(tmp_path: Path) -> None:
    assert summary.short(ModelSettings(model_name_or_path=str(tmp_path / "none"))) == ""
    assert summary.short(ModelSettings(model_name_or_path="org/never-downloaded")) == ""
