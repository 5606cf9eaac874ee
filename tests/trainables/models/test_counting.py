from __future__ import annotations

from pathlib import Path

import pytest

from trainables.models import base
from trainables.models.counting import Count, count, human
from trainables.settings import ModelSettings


def test_the_share_reads_well() -> None:
    assert str(Count(161_480_704, 8_190_735_360)) == "161.5M of 8.2B, 2%"
    assert str(Count(155_000_000, 8_190_735_360)) == "155.0M of 8.2B, 1.9%"
    assert [human(n) for n in (940, 16_384, 1_570_000)] == ["940", "16.4K", "1.6M"]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_four_bit_weights_count_in_full(tiny_model: Path, quantization: str) -> None:
    from peft import LoraConfig, get_peft_model

    plain = sum(p.numel() for p in base.load(ModelSettings(model_name_or_path=str(tiny_model))).parameters())
    model = base.load(ModelSettings(model_name_or_path=str(tiny_model), quantization=quantization))
    assert count(model) == Count(0, plain)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    ours = count(adapted)
    assert (ours.trainable, ours.total) == adapted.get_nb_trainable_parameters()
