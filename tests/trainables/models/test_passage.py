"""Layers that a row of text does not teach get no adapter: what is found is what training then shows."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.trainables.models import composites
from tests.trainables.packed import architectures
from trainables.models import lora, passage
from trainables.models.targets import linear_names
from tuner.contract import Fault

pytestmark = pytest.mark.usefixtures("one_thread")

_GEMMA3N: dict[str, Any] = {
    "head_dim": 16, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512, "laurel_rank": 8,
    "num_kv_shared_layers": 0, "layer_types": ["full_attention"] * 2, "activation_sparsity_pattern": [0.0, 0.0],
}  # fmt: skip


def mllama() -> Any:
    """A base that attends to images in its second layer."""
    import torch
    import transformers

    config = transformers.MllamaConfig(
        text_config={**composites.TEXT, "vocab_size": 128, "num_hidden_layers": 3, "cross_attention_layers": [1],
                     "bos_token_id": 0},
        vision_config={"hidden_size": 32, "attention_heads": 2, "num_hidden_layers": 1, "num_global_layers": 1,
                       "intermediate_size": 32, "vision_output_dim": 64, "image_size": 16, "patch_size": 4,
                       "intermediate_layers_indices": [0], "max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]},
        image_token_index=127,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.MllamaForConditionalGeneration(config).requires_grad_(False).eval()


def base_of(name: str) -> Any:
    if name == "mllama":
        return mllama()
    if name == "gemma3n":
        made = architectures.build("Gemma3nText", _GEMMA3N)
        for layer in made.model.layers:
            layer.altup.correct_output_scale.fill_(1.0)  # 0 in a base that was never trained
        return made
    return architectures.build(*{**architectures.GOOD, **architectures.LEAKY}[name])


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("gemma3n", ["model.layers.*.altup.correction_coefs"]),  # read past an adapter while it trains
        ("jamba", ["model.layers.*.mamba.dt_proj"]),  # read past an adapter
        ("mllama", [f"model.language_model.layers.*.cross_attn.{leaf}_proj" for leaf in "kqov"]),  # no images
    ],
)
def test_every_layer_with_an_adapter_gets_a_gradient(name: str, left_out: list[str]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = base_of(name)
    names = set(linear_names(model))
    found = passage.learning(model)
    assert found is not None and found < names
    adapted = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **lora.targeted(model, "all-linear")))
    ids = torch.arange(24).view(2, 12)
    adapted.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    seconds = {part: own for part, own in adapted.named_parameters() if "lora_B" in part}
    assert seconds and all(own.grad is not None and bool(own.grad.any()) for own in seconds.values())
    idle = sorted(
        {_of_any_layer(layer) for layer in names - found if "vision" not in layer and "projector" not in layer}
    )
    assert set(left_out) <= set(idle)
    assert not any(
        _of_any_layer(part).startswith(f"base_model.model.{layer}.") for part in seconds for layer in left_out
    )


def _of_any_layer(name: str) -> str:
    """The name with `*` for the number of a layer."""
    return re.sub(r"\.\d+\.", ".*.", name)


def test_a_base_of_which_every_layer_learns() -> None:
    """With values and without."""
    import torch

    model = base_of("qwen3")
    assert passage.learning(model) == set(linear_names(model))
    assert lora.targeted(model, "all-linear") == {"target_modules": "all-linear", "exclude_modules": None}
    with torch.device("meta"):
        shape = type(model)(model.config).requires_grad_(False)
    assert passage.learning(shape) == passage.learning(model)


def test_a_base_is_left_as_it_was() -> None:
    import torch

    model = base_of("gpt2")  # draws dropout
    model.transformer.h[0].train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    passage.learning(model)
    assert torch.get_rng_state().equal(state)
    assert [module.training for module in model.modules()] == modes
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_base_that_cannot_compute_is_taken_by_names() -> None:
    model = base_of("qwen3")

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    model.forward = fails
    assert passage.learning(model) is None
    assert lora.targeted(model, "all-linear") == {"target_modules": "all-linear", "exclude_modules": None}


def test_a_list_of_layers_that_learn_nothing_is_refused() -> None:
    with pytest.raises(Fault, match="match layers that no gradient of a row of text reaches"):
        lora.targeted(base_of("jamba"), ["dt_proj"])
