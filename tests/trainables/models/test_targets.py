from __future__ import annotations

from typing import Any

import pytest

from trainables.models import targets
from tuner.contract import Fault, Reason


def build(kind: str) -> Any:
    """Makes a model of one layer, with the module names of an architecture."""
    import transformers as hf

    small = {"vocab_size": 32}
    makers = {
        "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(
            **small, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)),
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**small, n_embd=16, n_layer=1, n_head=2)),
        "neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(
            **small, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)),
        "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(
            **small, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16)),
        "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(
            **small, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, pad_token_id=0)),
    }  # fmt: skip
    return makers[kind]()


@pytest.mark.parametrize(
    ("kind", "attention", "mlp"),
    [
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
        ("gpt2", {"c_attn", "attn.c_proj"}, {"c_fc", "mlp.c_proj"}),
        ("neox", {"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
        ("opt", {"q_proj", "k_proj", "v_proj", "out_proj"}, {"fc1", "fc2"}),
        ("phi3", {"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
    ],
)
def test_groups(kind: str, attention: set[str], mlp: set[str]) -> None:
    model = build(kind)
    assert set(targets.resolve(model, "attention")) == attention
    assert set(targets.resolve(model, "mlp")) == mlp
    assert targets.resolve(model, "all-linear") == "all-linear"


def test_peft_adapts_exactly_the_group() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build("gpt2"), LoraConfig(target_modules=targets.resolve(build("gpt2"), "mlp")))
    adapted = {name.partition(".lora_A")[0] for name, _ in model.named_modules() if name.endswith("lora_A")}
    assert {name.partition(".h.0.")[2] for name in adapted} == {"mlp.c_fc", "mlp.c_proj"}


def test_a_list_is_taken_as_it_is() -> None:
    assert targets.resolve(build("llama"), ["q_proj", "self_attn.v_proj"]) == ["q_proj", "self_attn.v_proj"]


def test_a_name_that_matches_nothing_is_told_with_the_nearest() -> None:
    with pytest.raises(Fault, match="'query_proj' matches nothing") as caught:
        targets.resolve(build("llama"), ["q_proj", "query_proj"])
    assert caught.value.reason is Reason.CONFIG
    assert "q_proj" in caught.value.message and "_proj" in caught.value.remedy


def test_a_group_the_model_has_not() -> None:
    import torch

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.thing = torch.nn.Linear(2, 2)

        def get_output_embeddings(self) -> None:
            return None

    with pytest.raises(Fault, match="the base has thing"):
        targets.resolve(Odd(), "attention")


def test_the_output_layer_is_refused() -> None:
    with pytest.raises(Fault, match="output layer 'lm_head'"):
        targets.resolve(build("llama"), ["q_proj", "lm_head"])


@pytest.mark.parametrize(
    ("name", "attention", "mlp"),
    [
        ("qwen3_moe", {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
        ("falcon", {"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    ],
)
def test_layers_that_are_not_called_linear(name: str, attention: set[str], mlp: set[str]) -> None:
    """Experts that are one tensor, by the names that PEFT takes for parts of it; Falcon's own class."""
    from peft import LoraConfig, get_peft_model

    model = base_of(name)
    assert set(targets.resolve(model, "attention")) == attention
    assert set(targets.resolve(model, "mlp")) == mlp
    assert set(targets.resolve(model, sorted(mlp))) == mlp
    before = {parameter.requires_grad for parameter in model.parameters()}
    adapted = get_peft_model(model, LoraConfig(target_modules=targets.resolve(model, "mlp"), task_type="CAUSAL_LM"))
    assert before and any("lora_B" in part for part, own in adapted.named_parameters() if own.requires_grad)


@pytest.mark.parametrize("name", ["falcon_h1", "mamba"])
def test_all_linear_leaves_out_what_peft_refuses(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = base_of(name)
    found = targets.resolve(model, "all-linear")
    assert isinstance(found, list) and found and not any(layer.endswith(("out_proj", "conv1d")) for layer in found)
    adapted = get_peft_model(model, LoraConfig(target_modules=found, task_type="CAUSAL_LM"))
    assert any("lora_B" in part for part, own in adapted.named_parameters() if own.requires_grad)


@pytest.mark.parametrize(
    ("name", "router"),
    [("qwen2_moe without auxiliary loss", "shared_expert_gate"), ("llama4", "router"), ("gpt_oss", "")],
)
def test_routers_get_an_adapter_only_where_they_are_named(name: str, router: str) -> None:
    """As linear layers, and as tensors of a module of their own."""
    from peft import LoraConfig, get_peft_model

    from trainables.models import lora, parts

    def kinds(target: Any) -> set[str]:
        model = base_of(name, num_experts=4)
        adapted = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **lora.targeted(model, target)))
        return set(parts.trained(adapted)["language"])

    assert "router" not in kinds("all-linear") | kinds("mlp")
    assert "experts" in kinds("mlp")
    if router:
        assert kinds(["q_proj", router]) == {"attention", "router"}


def test_experts_that_peft_knows_by_no_name_of_a_layer() -> None:
    """GPT-OSS: `mlp` is their tensors, and all of them learn."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trainables.models import lora

    model = base_of("gpt_oss")
    wanted = lora.targeted(model, "mlp")
    assert wanted["target_modules"] == [] and wanted["exclude_modules"] is None
    assert sorted(wanted["target_parameters"]) == ["experts.down_proj", "experts.gate_up_proj"]
    assert "target_parameters" not in lora.targeted(model, "all-linear")
    adapted = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **wanted))
    ids = torch.arange(24).view(2, 12)
    adapted.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    seconds = [own for part, own in adapted.named_parameters() if "lora_B" in part]
    assert len(seconds) == 4 and all(own.grad is not None and bool(own.grad.any()) for own in seconds)


def base_of(name: str, **more: Any) -> Any:
    from tests.trainables.packed.architectures import GOOD, LEAKY, OTHER, build

    return build(*{**GOOD, **LEAKY, **OTHER}[name], **more)
