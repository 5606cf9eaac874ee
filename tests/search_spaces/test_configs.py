"""Draws from every shipped space make configurations that PEFT and TRL accept, on a real (tiny) base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.search_spaces.test_shipped import NAMES, points, space_and_settings
from trainables.sft import SFT
from tuner.space import with_params


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=64)
    )


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_valid_lora_and_sft_configs(name: str, base: Any, tmp_path: Path) -> None:
    from peft import LoraConfig
    from trl import SFTConfig

    from trainables.hf.arguments import sft_config
    from trainables.models.lora import lora_config

    space, settings = space_and_settings(name)
    for point in points(space, 200):
        trial = with_params(settings, point, SFT)
        lora = lora_config(trial, base)
        arguments = sft_config(trial, 100, 0, str(tmp_path), gpu=False, bf16=False)
        assert isinstance(lora, LoraConfig)
        assert isinstance(arguments, SFTConfig)
        assert lora.r == trial.train.lora_r
        assert arguments.learning_rate == point["learning_rate"]
        effective = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        assert effective == trial.train.effective_batch_size
        assert arguments.warmup_steps <= 10


@pytest.mark.parametrize("name", NAMES)
def test_extreme_draws_make_adapters_that_peft_puts_on_a_base(name: str, base: Any) -> None:
    from peft import get_peft_model

    from trainables.models.lora import lora_config

    space, settings = space_and_settings(name)
    every = {
        str(sorted((key, str(value)) for key, value in point.items() if key in _SHAPE)): point
        for point in points(space, 200)
    }
    for point in list(every.values())[:12]:
        adapted = get_peft_model(base, lora_config(with_params(settings, point, SFT), base))
        assert any(parameter.requires_grad for parameter in adapted.parameters())
        adapted.unload()


_SHAPE = ("lora_r", "lora_alpha_mode", "target_modules", "use_dora", "init_lora_weights")
