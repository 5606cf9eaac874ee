"""The estimate is near the peaks that `scripts/bench_tokens.py` measured on an H200: rank 16, buffers for 16 slots."""

from __future__ import annotations

import pytest

from trainables.models.memory import DecoderShape, need, shape_of

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
