from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.models.test_targets import base_of
from trainables.models import inspecting, kernels
from trainables.settings import ModelSettings
from tuner.contract import InputError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gemma2", ("attention runs as eager: transformers has no sdpa for Gemma2ForCausalLM",)),
        ("qwen3_moe", ()),
        ("mamba", ()),  # it has no attention
    ],
)
def test_another_kernel_than_sdpa_is_a_note(name: str, said: tuple[str, ...]) -> None:
    base = base_of(name)
    assert kernels.notes(ModelSettings(model_name_or_path="x"), base) == said
    assert kernels.notes(ModelSettings(model_name_or_path="x", attn_implementation="eager"), base) == ()


def test_a_kernel_that_the_base_does_not_have_is_refused_before_the_first_trial(tmp_path: Path) -> None:
    base_of("gemma2").save_pretrained(tmp_path)

    def look(kernel: str) -> inspecting.Inspected:
        return inspecting.inspect(ModelSettings(model_name_or_path=str(tmp_path), attn_implementation=kernel), tmp_path)

    assert look("auto").notes and not look("eager").notes
    for kernel in ("sdpa", "no_such_kernel"):
        with pytest.raises(InputError, match=f"the base cannot be loaded with {kernel}: ") as caught:
            look(kernel)
        assert caught.value.where == "model.attn_implementation"
        assert caught.value.remedy == "set model.attn_implementation to auto"
