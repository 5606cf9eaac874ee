from __future__ import annotations

from pathlib import Path

import pytest

from trainables.models import base
from trainables.models.resident import Resident
from trainables.settings import ModelSettings
from tuner.contract import InputError


def test_frozen_sdpa_fp32_on_the_cpu(tiny_model: Path) -> None:
    import torch

    model = base.load(ModelSettings(model_name_or_path=str(tiny_model)))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    if not torch.cuda.is_available():
        assert model.dtype is torch.float32


def test_nf4_quantizes_twice_and_computes_in_bf16(tiny_model: Path) -> None:
    import torch

    quantization = {"kind": "nf4", "compute_dtype": "bfloat16"}
    model = base.load(ModelSettings(model_name_or_path=str(tiny_model), quantization=quantization))
    layer = model.model.layers[0].self_attn.q_proj
    assert type(layer).__name__ == "Linear4bit"
    assert layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
    assert layer.compute_dtype is torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_nf4_computes_in_what_the_processor_multiplies(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    import torch

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    model = base.load(ModelSettings(model_name_or_path=str(tiny_model), quantization="nf4"))
    wanted = torch.bfloat16 if native or torch.cuda.is_available() else torch.float32
    assert model.model.layers[0].self_attn.q_proj.compute_dtype is wanted


def test_nf4_keeps_its_gradient_after_an_evaluation(tiny_model: Path) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes would repack the weights for a kernel without a backward pass."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = base.load(ModelSettings(model_name_or_path=str(tiny_model), quantization="nf4"))
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.arange(1, 33).view(2, 16)

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    before = gradients()
    with torch.no_grad():
        model.eval()(input_ids=ids)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))


def test_weights_that_are_not_safetensors_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"no safetensors weights \(pytorch_model.bin\)"):
        base.load(ModelSettings(model_name_or_path=str(tmp_path)))


def test_a_model_that_is_no_language_model(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    (tmp_path / "model.safetensors").write_bytes((tiny_model / "model.safetensors").read_bytes())
    with pytest.raises(InputError):
        base.load(ModelSettings(model_name_or_path=str(tmp_path)))


def test_the_resident_undoes_whatever_was_done(tiny_model: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    model = base.load(ModelSettings(model_name_or_path=str(tiny_model)))
    resident = Resident(model)
    tree, checksum, forward = resident.tree(), resident.checksum(), model.forward
    config = model.config.to_dict()

    model.forward = lambda *args, **kwargs: None
    model.config.pad_token_id = 7
    model.config.use_cache = False
    model.generation_config.max_length = 3
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.model.layers[0].register_forward_hook(lambda *args: None)
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert resident.tree() != tree

    resident.restore()
    assert resident.tree() == tree
    assert resident.checksum() == checksum
    assert model.config.to_dict() == config
    assert model.forward == forward
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.is_gradient_checkpointing
    assert model(input_ids=torch.ones(1, 2, dtype=torch.long)).logits.requires_grad is False


def test_the_checksum_sees_one_changed_weight(tiny_model: Path) -> None:
    import torch

    resident = Resident(base.load(ModelSettings(model_name_or_path=str(tiny_model))))
    before = resident.checksum()
    with torch.no_grad():
        resident.model.model.norm.weight[0] += 1
    assert resident.checksum() != before
