from __future__ import annotations

from typing import Any

import pytest

from trainables.models import positions
from tuner.contract import InputError, Preparation

SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 48, "n_embd": 32, "n_layer": 1, "n_head": 2},
    "opt": {"max_position_embeddings": 48, "hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "word_embed_proj_dim": 32},
    "gpt_neo": {"max_position_embeddings": 48, "hidden_size": 32, "num_layers": 1, "num_heads": 2,
                "attention_types": [[["global"], 1]]},
    "llama": {"max_position_embeddings": 48, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 2},
    "bloom": {"hidden_size": 32, "n_layer": 1, "n_head": 2},
}  # fmt: skip


def base_of(kind: str) -> Any:
    import transformers

    config = transformers.AutoConfig.for_model(kind, vocab_size=64, **SMALL[kind])
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def preparation(longest: int) -> Preparation:
    return Preparation("x", 1, {"train": {"max_length": 8}, "validation": {"max_length": longest}})


@pytest.mark.parametrize("kind", SMALL)
def test_rows_beyond_a_table_of_positions_are_refused(kind: str) -> None:
    import torch

    base = base_of(kind)
    fails = False
    try:
        base(input_ids=torch.zeros((1, 49), dtype=torch.long))
    except (IndexError, RuntimeError):
        fails = True
    assert positions.table_of(base) == (48 if fails else None)
    positions.check(base, preparation(48))
    if not fails:
        positions.check(base, preparation(49))
        return
    with pytest.raises(InputError, match="the longest row has 49 tokens, the base has 48 positions") as caught:
        positions.check(base, preparation(49))
    assert caught.value.remedy.startswith("set data.max_length to 48")


TABLES: dict[str, dict[str, Any]] = {
    "gpt_bigcode": SMALL["gpt2"],
    "openai-gpt": SMALL["gpt2"],
    "gptj": {**SMALL["gpt2"], "rotary_dim": 8},
    "codegen": {**SMALL["gpt2"], "n_head": 4, "n_ctx": 48, "rotary_dim": 8},
    "ctrl": {**SMALL["gpt2"], "dff": 32},
    "biogpt": {**SMALL["llama"], "hidden_act": "gelu"},
}


@pytest.mark.parametrize("kind", positions._TABLES)
def test_known_tables_are_refused_before_anything_runs(kind: str) -> None:
    """Each of them fails beyond the end that its config.json names, and not before."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(kind, vocab_size=64, **{**SMALL, **TABLES}[kind])
    base = transformers.AutoModelForCausalLM.from_config(config).eval()
    base(input_ids=torch.zeros((1, 48), dtype=torch.long))
    with pytest.raises((IndexError, RuntimeError)):
        base(input_ids=torch.zeros((1, 49), dtype=torch.long))
    assert positions.check_length(config.to_dict(), 48) == ""
    with pytest.raises(InputError, match=r"data.max_length is 49, and the base has a table of 48 positions") as caught:
        positions.check_length(config.to_dict(), 49)
    assert caught.value.remedy.startswith("set data.max_length to 48")


def test_computed_positions_are_a_note() -> None:
    config = {"model_type": "llama", "max_position_embeddings": 48}
    assert positions.check_length(config, 48) == "" and positions.check_length({"model_type": "bloom"}, 1024) == ""
    for found in (config, {"model_type": "some_vl", "text_config": config}):
        assert "beyond the 48 positions" in positions.check_length(found, 49)
