"""Checkpoints that lack weights are refused, with the likely cause; complete ones are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainables.models import base, base_folder, checkpoint, inspecting
from trainables.models.completeness import Loading, require_complete
from trainables.settings import ModelSettings
from trainables.sft import SFT
from tuner.contract import InputError

Weights = dict[str, Any]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}


def save(folder: Path, config: Any, kind: str = "AutoModelForCausalLM") -> Path:
    """Saves a random model of a real architecture."""
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, kind)
    model = made.from_config(config) if kind.startswith("Auto") else made(config)
    model.save_pretrained(folder)
    return folder


def edit(source: Path, to: Path, change: Callable[[Weights], Weights], config: Mapping[str, Any] | None = None) -> Path:
    """Copies a base, with other weights and other values in its config.json."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, to)
    weights = change(load_file(to / checkpoint.SINGLE))
    save_file({name: tensor.clone() for name, tensor in weights.items()}, to / checkpoint.SINGLE, {"format": "pt"})
    written = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**written, **(config or {})}))
    return to


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def renamed(rename: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {rename(name): tensor for name, tensor in weights.items()}


def both(place: Path, **model: Any) -> list[InputError | None]:
    """What the inspection before the first trial says, and what the load says."""
    settings = ModelSettings(model_name_or_path=str(place), **model)
    found: list[InputError | None] = []
    for look in (lambda: inspecting.inspect(settings, base_folder.check(settings)), lambda: base.load(settings)):
        try:
            look()
            found.append(None)
        except InputError as error:
            found.append(error)
    return found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig

    return save(tmp_path_factory.mktemp("bases") / "llama", LlamaConfig(**SIZES))


LOST: dict[str, tuple[Callable[[Weights], Weights], str, str]] = {
    "head": (without("lm_head"), "lacks 1 of the 21 weights of a LlamaForCausalLM", "lm_head.weight"),
    "layer": (without("layers.1."), "lacks 9 of the 21", "and 4 more"),
    "DataParallel": (renamed(lambda name: f"module.{name}"), "lacks 21 of the 21", "'module' in them"),
    "compiled": (renamed(lambda n: n.replace(".mlp.", ".mlp._orig_mod.")), "lacks 6 of the 21", "torch.compile"),
    "prefix": (renamed(lambda name: f"policy.actor.{name}"), "lacks 21 of the 21", "'policy.actor' in them"),
    "adapter": (
        lambda w: {
            **{f"base_model.model.{n}".replace("_proj.", "_proj.base_layer."): t for n, t in w.items()},
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": w["lm_head.weight"][:4],
        },
        "lacks 21 of the 21",
        "an adapter that was not merged",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_weights_that_are_missing_are_named_with_the_likely_cause(llama: Path, tmp_path: Path, name: str) -> None:
    change, count, cause = LOST[name]
    for error in both(edit(llama, tmp_path / "base", change)):
        assert error is not None and count in error.what and cause in error.what, error


def test_shapes_that_differ_are_named(llama: Path, tmp_path: Path) -> None:
    for error in both(edit(llama, tmp_path / "base", dict, {"vocab_size": 128})):
        assert error is not None and "2 of 21 weights have another shape" in error.what, error
        assert "lm_head.weight is 64x32, not 128x32" in error.what


def test_more_layers_in_the_config_than_in_the_checkpoint(llama: Path, tmp_path: Path) -> None:
    for error in both(edit(llama, tmp_path / "base", dict, {"num_hidden_layers": 4})):
        assert error is not None and "lacks 18 of the 39" in error.what and "lost" in error.remedy


def test_fewer_layers_in_the_config_are_a_note(llama: Path, tmp_path: Path) -> None:
    place = edit(llama, tmp_path / "base", dict, {"num_hidden_layers": 1})
    (note,) = inspecting.inspect(ModelSettings(model_name_or_path=str(place)), place).notes
    assert "9 tensors" in note and "model.layers.1." in note and "left out" in note


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    embedding = save(tmp_path / "embedding", LlamaConfig(**SIZES), "LlamaModel")
    for error in both(embedding):
        assert error is not None and "lm_head.weight" in error.what and "a LlamaModel" in error.what, error


def test_a_fused_expert_of_which_a_part_is_lost(tmp_path: Path) -> None:
    """Mixtral's files have a tensor for each expert; they are stacked as they are loaded."""
    from transformers import MixtralConfig

    whole = save(tmp_path / "mixtral", MixtralConfig(**SIZES, num_local_experts=4, num_key_value_heads=4))
    assert both(whole) == [None, None]
    for error in both(edit(whole, tmp_path / "part", without("layers.1.block_sparse_moe.experts.2.w1"))):
        assert error is not None and "model.layers.1.mlp.experts.gate_up_proj" in error.what, error
    for error in both(edit(whole, tmp_path / "all", without("layers.1.block_sparse_moe.experts.2."))):
        assert error is not None and "is 3x32x48, not 4x32x48" in error.what, error


def test_whole_checkpoints_are_let_through(tmp_path: Path) -> None:
    """Tied heads, masks that are buffers, weights that are renamed, fused or split as they are loaded."""
    import transformers as t

    gpt2 = t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32)
    configs = {
        "tied": t.LlamaConfig(**SIZES, tie_word_embeddings=True),
        "gemma": t.Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=8),
        "gpt2": gpt2,
        "phi": t.PhiConfig(**SIZES),
        "qwen2": t.Qwen2Config(**SIZES, num_key_value_heads=2),
        "qwen3moe": t.Qwen3MoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, num_key_value_heads=2),
    }
    for name, config in configs.items():
        assert both(save(tmp_path / name, config)) == [None, None], name

    def as_of_old(weights: Weights) -> Weights:  # masks in the file, and names without `transformer.`
        import torch

        masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 32, 32) for layer in range(2)}
        return {name.removeprefix("transformer."): tensor for name, tensor in weights.items()} | masks

    assert both(edit(tmp_path / "gpt2", tmp_path / "hub", as_of_old)) == [None, None]


def test_a_tied_head_whose_source_is_lost_too(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    whole = save(tmp_path / "tied", LlamaConfig(**SIZES, tie_word_embeddings=True))
    for error in both(edit(whole, tmp_path / "lost", without("embed_tokens"))):
        assert error is not None and "model.embed_tokens.weight" in error.what, error


def test_the_head_alone_stands_in_for_tied_embeddings(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    whole = save(tmp_path / "tied", LlamaConfig(**SIZES, tie_word_embeddings=True))
    other = edit(whole, tmp_path / "head", renamed(lambda n: n.replace("model.embed_tokens", "lm_head")))
    assert both(other) == [None, None]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_weight_that_is_no_number(llama: Path, tmp_path: Path, quantization: str) -> None:
    def spoil(weights: Weights) -> Weights:
        weights["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
        return weights

    _, error = both(edit(llama, tmp_path / "base", spoil), quantization=quantization)
    assert error is not None and "model.layers.1.mlp.up_proj.weight has values that are no finite" in error.what


def test_a_base_in_4_bit_says_what_to_set_and_is_judged_alike(llama: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(llama, quantization_config=how).save_pretrained(tmp_path / "four")
    for error in both(tmp_path / "four"):
        assert error is not None and error.expected == "model.quantization: nf4"
    assert both(tmp_path / "four", quantization="nf4") == [None, None]
    bf16 = {"kind": "nf4", "compute_dtype": "bfloat16"}
    settings = ModelSettings(model_name_or_path=str(tmp_path / "four"), quantization=bf16)
    assert base.load(settings).model.layers[0].mlp.up_proj.compute_dtype is torch.bfloat16  # not what is stored
    for part in ("lm_head", "layers.1.mlp.up_proj"):
        for error in both(edit(tmp_path / "four", tmp_path / part, without(part)), quantization="nf4"):
            assert error is not None and part.removeprefix("layers.1.") in error.what, error


def test_a_base_in_8_bit_is_read_with_its_scales(llama: Path, tmp_path: Path) -> None:
    """Told `quantization_config=None`, transformers would take the bytes for the weights."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    how = BitsAndBytesConfig(load_in_8bit=True)
    AutoModelForCausalLM.from_pretrained(llama, quantization_config=how).save_pretrained(tmp_path / "eight")
    loaded = base.load(ModelSettings(model_name_or_path=str(tmp_path / "eight")))
    assert type(loaded.model.layers[0].mlp.up_proj).__name__ == "Linear8bitLt"
    whole = base.load(ModelSettings(model_name_or_path=str(llama)))
    ids = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits.float(), whole(input_ids=ids).logits, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("method", "told"),
    [("gptq", "gptq|GPTQ"), ("awq", "awq|AWQ|gptq"), ("compressed-tensors", "compressed-tensors")],
)
def test_a_form_that_is_not_read_here_is_said(llama: Path, tmp_path: Path, method: str, told: str) -> None:
    how = {"quant_method": method, "bits": 4, "group_size": 32, "config_groups": {}}
    for error in both(edit(llama, tmp_path / "base", dict, {"quantization_config": how})):
        assert error is not None
        assert any(word in str(error) for word in told.split("|")), error


def test_nf4_over_what_is_quantized_already(llama: Path, tmp_path: Path) -> None:
    place = edit(llama, tmp_path / "base", dict, {"quantization_config": {"quant_method": "fp8"}})
    for error in both(place, quantization="nf4"):
        assert error is not None and "stored quantized already (fp8)" in error.what


def damaged(what: str, file: Path) -> None:
    whole = file.read_bytes()
    match what:
        case "empty":
            file.write_bytes(b"")
        case "cut in the header":
            file.write_bytes(whole[:100])
        case "cut in the weights":
            file.write_bytes(whole[:-10])
        case "no safetensors file":
            file.write_bytes(b"\x80\x02}q\x00" * 1000)
        case "pointer of Git LFS":
            file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
        case "grown":
            file.write_bytes(whole + b"\0" * 8)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("empty", "is empty"),
        ("cut in the header", "the header is not all there"),
        ("cut in the weights", "is cut off: it has"),
        ("no safetensors file", "no safetensors file"),
        ("pointer of Git LFS", "pointer of Git LFS"),
        ("grown", "is damaged: it has"),
    ],
)
def test_a_damaged_file_is_named(llama: Path, tmp_path: Path, what: str, told: str) -> None:
    place = Path(shutil.copytree(llama, tmp_path / "base"))
    damaged(what, place / checkpoint.SINGLE)
    for error in both(place):
        assert error is not None and told in error.what and error.where == str(place / checkpoint.SINGLE), error


def test_lost_shards_are_named(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert both(tmp_path) == [None, None]
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[1].unlink()
    for error in both(tmp_path):
        assert error is not None and f"1 of its {len(shards)} files are missing: {shards[1].name}" in error.what


@pytest.mark.parametrize(
    ("name", "told"),
    [("pytorch_model.bin", r"\(pytorch_model.bin\)"), ("m.gguf", "GGUF is for inference"), ("x", "no weights")],
)
def test_other_kinds_of_weights_get_words(llama: Path, tmp_path: Path, name: str, told: str) -> None:
    shutil.copy(llama / "config.json", tmp_path)
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError) as caught:
        base_folder.check(ModelSettings(model_name_or_path=str(tmp_path)))
    assert "no safetensors weights" in caught.value.what
    import re

    assert re.search(told, str(caught.value))


def test_preparing_refuses_before_anything_trains(
    sft_settings: Callable[..., dict[str, Any]], tiny_model: Path, tmp_path: Path
) -> None:
    """Without torch in this process, as a search has it."""
    place = edit(tiny_model, tmp_path / "base", without("lm_head"))
    settings = sft_settings(model={"model_name_or_path": str(place)})
    code = (
        "import sys\nfrom trainables.sft import SFT\nfrom tuner.contract import InputError\n"
        f"try: SFT.prepare({settings!r}, {str(tmp_path / 'cache')!r})\n"
        "except InputError as error: print('torch' in sys.modules, error.what)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False the checkpoint lacks 1 of the 21 weights") and "lm_head" in done.stdout


def test_a_look_that_breaks_off_is_no_refusal(
    sft_settings: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    done = SFT.prepare(sft_settings(), tmp_path)
    assert any("could not be compared" in note for note in done.notes)


def test_a_model_whose_tokens_see_those_after_them(tmp_path: Path) -> None:
    """BERT, unless its config says that it is a decoder; the head is whole, so that only its output tells."""
    import transformers as t

    sizes = {**SIZES, "max_position_embeddings": 32}
    found = both(save(tmp_path / "bert", t.BertConfig(**sizes), "BertForMaskedLM"))
    assert found[0] is None and found[1] is not None and "no causal language model" in found[1].what
    decoder = both(save(tmp_path / "decoder", t.BertConfig(**sizes, is_decoder=True), "BertLMHeadModel"))
    assert decoder == [None, None]
    llama = t.Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=8, use_bidirectional_attention=True)
    found = both(save(tmp_path / "embedding", llama))
    assert found[1] is not None and "no causal language model" in found[1].what


def test_the_judgement_alone() -> None:
    """Notes for what is left over, none for what is whole."""
    assert require_complete(Loading("A", 3), {}, "here") == ()
    assert require_complete(Loading("A", 3), {"architectures": ["B"]}, "here") == (
        "config.json calls the base a B: it is trained as a A",
    )
    with pytest.raises(InputError, match="a weight of a A"):
        require_complete(Loading("A", 0, unconverted=["x"]), {}, "here")
