"""Each module of a model is told to be of the part that it is of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainables.models import composites
from tests.trainables.packed.architectures import GOOD, LEAKY, OTHER
from tests.trainables.packed.architectures import build as build_text
from trainables.models import parts
from trainables.models.parts import Kind, Part, Tower


def built(name: str) -> Any:
    """A model on the meta device."""
    import torch

    with torch.device("meta"):
        return composites.build(name)


def linear(model: Any) -> dict[str, Part]:
    """The parts of the linear layers but the head."""
    from trainables.models.targets import linear_names

    found = parts.of(model)
    return {name: found[name] for name in linear_names(model)}


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("gemma3", {"model.vision_tower": Tower.VISION, "model.multi_modal_projector": Tower.PROJECTOR}),
        ("qwen2_5_vl", {"model.visual": Tower.VISION}),
        ("qwen3_vl", {"model.visual": Tower.VISION}),
        ("qwen3_vl_moe", {"model.visual": Tower.VISION}),
        ("qwen3_5", {"model.visual": Tower.VISION}),
        ("mistral3", {"model.vision_tower": Tower.VISION, "model.multi_modal_projector": Tower.PROJECTOR}),
        ("smolvlm", {"model.vision_model": Tower.VISION, "model.connector": Tower.PROJECTOR}),
        ("qwen2_audio", {"model.audio_tower": Tower.AUDIO, "model.multi_modal_projector": Tower.PROJECTOR}),
    ],
)
def test_towers_of_models_that_take_more_than_text(name: str, outside: dict[str, Tower]) -> None:
    model = built(name)
    found = parts.of(model)
    assert {root: found[root].tower for root in parts.roots(found)} == outside
    for module, part in found.items():
        root = next((root for root in outside if module == root or module.startswith(f"{root}.")), None)
        assert part.tower is (outside[root] if root else Tower.LANGUAGE), module


@pytest.mark.parametrize("name", ["gemma3", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "smolvlm"])
def test_the_language_part_is_attention_mlp_and_experts(name: str) -> None:
    kinds = {module.rpartition(".")[2]: part.kind for module, part in linear(built(name)).items()
             if part.tower is Tower.LANGUAGE}  # fmt: skip
    assert {kinds[leaf] for leaf in ("q_proj", "k_proj", "v_proj", "o_proj")} == {Kind.ATTENTION}
    if name == "qwen3_vl_moe":
        found = parts.of(built(name))
        assert found["model.language_model.layers.0.mlp.experts"] == Part(Tower.LANGUAGE, Kind.EXPERTS)
        assert found["model.language_model.layers.0.mlp.gate"] == Part(Tower.LANGUAGE, Kind.ROUTER)
    else:
        assert {kinds[leaf] for leaf in ("gate_proj", "up_proj", "down_proj")} == {Kind.MLP}


@pytest.mark.parametrize("name", [*GOOD, *LEAKY, *OTHER])
def test_a_model_of_text_is_all_language(name: str) -> None:
    import torch

    with torch.device("meta"):
        model = build_text(*{**GOOD, **LEAKY, **OTHER}[name])
    found = parts.of(model)
    assert {*found} == {module for module, _ in model.named_modules()}
    assert parts.towers(found) == (Tower.LANGUAGE,) and not parts.roots(found)
    kinds = {part.kind for part in linear(model).values()}
    assert Kind.ATTENTION in kinds or "mamba" in name
    assert (Kind.EXPERTS in {part.kind for part in found.values()}) == any(
        "Experts" in type(module).__name__ or module_name.endswith(".experts")
        for module_name, module in model.named_modules()
    )


def test_routers_and_the_gate_of_a_shared_expert() -> None:
    import torch
    import transformers

    sizes = {**composites.TEXT, "vocab_size": 64, "num_experts": 4, "num_experts_per_tok": 2,
             "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen2MoeConfig(**sizes))
    found = parts.of(model)
    layer = "model.layers.0.mlp"
    assert found[f"{layer}.gate"].kind is found[f"{layer}.shared_expert_gate"].kind is Kind.ROUTER
    assert found[f"{layer}.shared_expert.gate_proj"].kind is Kind.MLP
    assert found[f"{layer}.experts"].kind is Kind.EXPERTS


def test_counts_of_an_adapter_by_part() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(composites.build("qwen3_vl"), LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    counts = parts.trained(model)
    assert counts == {"language": {"attention": 2 * 4 * (64 + 64), "mlp": 2 * 4 * (64 + 128)}, "vision": {}}
    assert parts.told(counts) == "language: attention 1.0K, mlp 1.5K; vision: none"
