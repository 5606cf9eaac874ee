"""The estimate is near the peaks that `scripts/bench_tokens.py` measured on an H200: rank 16, buffers for 16 slots."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from trainables.models.checkpoint import Tensor
from trainables.models.memory import DecoderShape, need, shape_of
from trainables.models.stored import Stored, stored_in

SHAPES = {
    "1.5b": DecoderShape(1536, 8960, 28, 1536, 256, 151936, tied=True),
    "7b": DecoderShape(3584, 18944, 28, 3584, 512, 152064, tied=False),
}


@pytest.mark.parametrize(
    ("shape", "nf4", "tokens", "slots", "gib"),
    [
        ("1.5b", False, 256, 16, 18.0),
        ("1.5b", False, 8192, 4, 87.1),
        ("1.5b", True, 256, 1, 4.0),
        ("1.5b", True, 1024, 16, 43.0),
        ("7b", True, 256, 4, 15.5),
        ("7b", True, 8192, 1, 52.7),
        ("7b", False, 256, 1, 26.4),
        ("7b", False, 1024, 16, 110.4),
    ],
)
def test_packed_trials_need_what_was_measured(shape: str, nf4: bool, tokens: int, slots: int, gib: float) -> None:
    def estimate(slots: int, tokens: int) -> object:
        return need(SHAPES[shape], slots=slots, tokens=tokens, rank=16, bf16=True, nf4=nf4, packed=True)

    found, buffers = estimate(slots, tokens), estimate(16, 1).adapters  # type: ignore[attr-defined]
    total = found.total - found.adapters + buffers  # type: ignore[attr-defined]
    assert total / 2**30 == pytest.approx(gib, rel=0.15)


def test_a_solo_trial_keeps_more() -> None:
    shape = SHAPES["7b"]
    solo, packed = (
        need(shape, slots=1, tokens=1000, rank=16, bf16=True, nf4=True, packed=packed) for packed in (False, True)
    )
    assert solo.activations > packed.activations and solo.base == packed.base


@pytest.mark.parametrize("packed", [True, False])
def test_dropout_keeps_its_masks(packed: bool) -> None:
    """A factor for every input of every adapted layer, 18,176 a token and layer over 1.5B."""
    with_it, without = (
        need(SHAPES["1.5b"], slots=1, tokens=1000, rank=16, bf16=True, nf4=True, packed=packed, dropout=dropout)
        for dropout in (True, False)
    )
    assert with_it.activations - without.activations == (2 if packed else 3) * 18_176 * 28 * 1000


def test_shapes_are_read_from_configs() -> None:
    config = {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
    }  # fmt: skip
    assert shape_of(config) == SHAPES["1.5b"]
    assert shape_of({"text_config": config}) == SHAPES["1.5b"]
    assert shape_of({"n_embd": 768}) is None
    assert SHAPES["1.5b"].linear + SHAPES["1.5b"].embeddings == pytest.approx(1_543_714_304, rel=1e-3)


MIXTURES: dict[str, tuple[dict[str, Any], float]] = {
    "mixtral-8x7b": ({
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False, "num_local_experts": 8,
        "num_experts_per_tok": 2}, 46.7e9),
    "qwen3-30b-a3b": ({
        "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
        "num_attention_heads": 32, "head_dim": 128, "num_key_value_heads": 4, "vocab_size": 151936,
        "tie_word_embeddings": False, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
        "mlp_only_layers": []}, 30.5e9),
    "gpt-oss-20b": ({
        "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
        "head_dim": 64, "num_key_value_heads": 8, "vocab_size": 201088, "tie_word_embeddings": False,
        "num_local_experts": 32, "num_experts_per_tok": 4}, 20.9e9),
    "deepseek-moe-16b": ({
        "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102400, "tie_word_embeddings": False,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1}, 16.4e9),
    "jamba-like": ({
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
        "vocab_size": 100, "tie_word_embeddings": True, "num_experts": 16, "num_experts_per_tok": 2,
        "expert_layer_period": 2, "expert_layer_offset": 1}, 4 * 4 * 64 * 64 + (2 + 2 * 16) * 3 * 64 * 128 + 6400),
}  # fmt: skip
"""By name: sizes of a mixture of experts, and its parameters as they are published."""


@pytest.mark.parametrize("name", MIXTURES)
def test_all_experts_count(name: str) -> None:
    config, parameters = MIXTURES[name]
    shape = shape_of(config)
    assert shape is not None
    assert shape.linear + shape.routed + shape.embeddings == pytest.approx(parameters, rel=0.01)
    found = need(shape, slots=1, tokens=1024, rank=16, bf16=True, nf4=False, packed=False)
    assert found.base == pytest.approx(2 * parameters, rel=0.01)


def test_a_token_s_activations_are_those_of_the_experts_chosen_for_it() -> None:
    config, _ = MIXTURES["mixtral-8x7b"]
    several, all_of_them = shape_of(config), shape_of({**config, "num_experts_per_tok": 8})
    assert several is not None and all_of_them is not None
    one, most = (
        need(shape, slots=1, tokens=1000, rank=16, bf16=True, nf4=False, packed=False)
        for shape in (several, all_of_them)
    )
    assert most.activations - one.activations == 1000 * 32 * 6 * 2 * (2 * 4096 + 5 * 14336)
    assert one.base == most.base


def test_experts_of_unknown_size_are_no_known_shape() -> None:
    config, _ = MIXTURES["mixtral-8x7b"]
    assert shape_of({**config, "num_experts_per_tok": None}) is None
    assert shape_of({**config, "num_local_experts": [8, 8]}) is None


def test_what_is_stored_counts_more_than_the_config() -> None:
    tensors = {
        "embed_tokens.weight": _tensor("BF16", 50, 8),
        "layers.0.q_proj.weight": _tensor("BF16", 8, 8),
        "layers.0.mlp.experts.0.up_proj.weight": _tensor("F32", 16, 8),
        "layers.0.mlp.experts.gate_up_proj": _tensor("F16", 2, 16, 8),
        "layers.0.norm.weight": _tensor("F32", 8),
        "layers.0.packed.weight": _tensor("U8", 30, 1),
        "layers.0.small.weight": _tensor("F8_E4M3", 5, 5),
    }
    stored = stored_in(tensors, 50)
    assert stored == Stored(quantizable=64, others=400 + 128 + 256 + 8, fixed=55)
    found = need(SHAPES["1.5b"], slots=1, tokens=10, rank=16, bf16=True, nf4=False, packed=True, stored=stored)
    assert found.base == 2 * stored.parameters + 55


def _tensor(dtype: str, *shape: int) -> Tensor:
    """A tensor of a header, of as many bytes as numbers."""
    return Tensor(dtype, shape, 0, prod(shape))
