"""What is written for a server is loaded in a new process by transformers and PEFT alone, and computes the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import END
from tests.trainables.models import composites
from trainables.models import checkpoint
from trainables.serving import servers
from trainables.sft import SFT
from tuner.contract import InputError, Served

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8,
                    "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {"num_key_value_heads": 2},
    "gpt_neox": {},
}  # fmt: skip
STRANGER = """
import json, sys, torch, transformers, peft
folder, base, merged, ids = json.loads(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(folder if merged else base, dtype=torch.float32)
if not merged:
    model = peft.PeftModel.from_pretrained(model, folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = model.eval()(input_ids=torch.tensor([ids])).logits[0]
chat = tokenizer.apply_chat_template([{"role": "user", "content": "the cat"}], tokenize=False)
print(json.dumps({"logits": logits.tolist(), "end": tokenizer.eos_token, "chat": chat}))
"""
"""What a stranger writes: it knows nothing of this project."""
IDS = list(range(5, 45))


@pytest.fixture
def make_base(tiny_model: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Saves a random base of a family, with the tiny tokenizer and a generation config."""

    def make(family: str) -> Path:
        import torch
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
        config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), **SIZES, **FAMILIES[family])
        torch.manual_seed(0)
        place = tmp_path / family
        model = transformers.AutoModelForCausalLM.from_config(config)
        model.generation_config.temperature = 0.7
        model.generation_config.do_sample = True
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        return place

    return make


def make_adapter(base: Path, to: Path, **more: Any) -> Path:
    """Saves a random adapter that moves the logits."""
    import peft
    import torch
    import transformers

    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear",
                             init_lora_weights=False, **more)  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, config).save_pretrained(to)
    return to


def served(base: Path, adapter: Path, to: Path, server: str, *, merge: bool = False, compare: bool = True) -> Served:
    to.mkdir()
    settings = {"model": {"model_name_or_path": str(base)}, "data": {"train": "rows.jsonl"}}
    return SFT.serve(settings, adapter, to, server, "first", merge, compare)


def by_a_stranger(folder: Path, base: Path, *, merged: bool) -> dict[str, Any]:
    asked = json.dumps([str(folder), str(base), merged, IDS])
    done = subprocess.run([sys.executable, "-c", STRANGER, asked], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def by_the_program(base: Path, adapter: Path) -> Any:
    import peft
    import torch

    from trainables.models import base as bases
    from trainables.settings import ModelSettings

    model = peft.PeftModel.from_pretrained(bases.load(ModelSettings(model_name_or_path=str(base))), str(adapter))
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("merge", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["adapter", "merged"])
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == "llama" else [pytest.mark.slow]) for name in FAMILIES]
)
def test_a_stranger_gets_the_trained_model(
    family: str, merge: bool, make_base: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch

    base = make_base(family)
    adapter = make_adapter(base, tmp_path / "adapter")
    said = served(base, adapter, tmp_path / "to", "vllm", merge=merge)
    found = by_a_stranger(tmp_path / "to", base, merged=merge)
    known = by_the_program(base, adapter)
    torch.testing.assert_close(torch.tensor(found["logits"]), known, atol=2e-5, rtol=1e-4)
    assert found["end"] == END and found["chat"] == "<|user|>the cat<|end|>"
    assert "differ from those of the trained model by up to" in said.compared and not said.notes
    generation = json.loads((tmp_path / "to" / "generation_config.json").read_text())
    assert generation["temperature"] == 0.7
    assert (tmp_path / "to" / servers.WEIGHTS).exists() == (not merge)


@pytest.mark.parametrize(
    "name", ["gemma3", *(pytest.param(more, marks=pytest.mark.slow) for more in ("qwen3_vl", "qwen3_5", "mistral3"))]
)
def test_an_adapter_over_a_base_with_images(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """It is on the language part alone, under the names of the checkpoint's class."""
    import peft
    import torch

    from trainables.models import base as bases
    from trainables.models import lora
    from trainables.settings import ModelSettings

    base = composites.save(name, tmp_path / "base", tiny_model)
    model = bases.load(ModelSettings(model_name_or_path=str(base)))
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, init_lora_weights=False,
                             **lora.targeted(model, "all-linear"))  # fmt: skip
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    said = served(base, tmp_path / "adapter", tmp_path / "to", "vllm")
    assert "differ from those of the trained model by up to" in said.compared
    pairs = checkpoint.header(tmp_path / "to" / servers.WEIGHTS)
    assert pairs and all(pair.startswith("base_model.model.model.language_model.layers.") for pair in pairs)


def half_the_scale(folder: Path) -> None:
    config = folder / servers.CONFIG
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 4'))


def names_of_no_module(folder: Path) -> None:
    """What a server would load as no modules at all, without a word."""
    import safetensors.torch

    pairs = safetensors.torch.load_file(folder / servers.WEIGHTS)
    renamed = {name.replace("model.layers", "model.language_model.layers"): pair for name, pair in pairs.items()}
    safetensors.torch.save_file(renamed, folder / servers.WEIGHTS)


def another_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (half_the_scale, r"logits of .* differ from those of the trained model by up to .*; allowed"),
        pytest.param(names_of_no_module, "logits of .* differ", marks=pytest.mark.slow),
        pytest.param(another_template, "its tokenizer gives another chat template", marks=pytest.mark.slow),
    ],
)
def test_what_computes_something_else_is_refused(
    spoil: Callable[[Path], None], told: str, make_base: Callable[[str], Path], tmp_path: Path
) -> None:
    from trainables.data import tokenizers
    from trainables.serving import comparing
    from trainables.settings import Settings

    base = make_base("llama")
    adapter = make_adapter(base, tmp_path / "adapter")
    given = {"model": {"model_name_or_path": str(base)}, "data": {"train": "rows.jsonl"}}
    settings = Settings.model_validate(given)
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    known = comparing.reference(settings, adapter, tokenizer, merge=False)
    served(base, adapter, tmp_path / "to", "peft", compare=False)
    spoil(tmp_path / "to")
    with pytest.raises(InputError, match=rf"it is not the trained model: {told}"):
        comparing.compare(settings, known, tmp_path / "to", base, tokenizer, merged=False)


@pytest.mark.parametrize("quantization", [pytest.param("none", marks=pytest.mark.slow), "nf4"])
def test_rslora_for_llama_cpp_is_the_same_adapter(
    quantization: str, make_base: Callable[[str], Path], tmp_path: Path
) -> None:
    """Compared over the base as it was trained on: in NF4 too."""
    base = make_base("llama")
    adapter = make_adapter(base, tmp_path / "adapter", use_rslora=True)
    (tmp_path / "to").mkdir()
    settings = {"model": {"model_name_or_path": str(base), "quantization": quantization}, "data": {"train": "rows"}}
    said = SFT.serve(settings, adapter, tmp_path / "to", "llama.cpp", "first", False, True)
    config = json.loads((tmp_path / "to" / servers.CONFIG).read_text())
    assert (config["use_rslora"], config["lora_alpha"]) == (False, 16)
    assert said.compared and ("NF4" in said.notes[0]) == (quantization == "nf4")


def test_ollamas_modelfile(make_base: Callable[[str], Path], tmp_path: Path) -> None:
    base = make_base("llama")
    adapter = make_adapter(base, tmp_path / "adapter")
    said = served(base, adapter, tmp_path / "to", "ollama", compare=False)
    text = (tmp_path / "to" / "Modelfile").read_text()
    assert text.startswith(f'FROM {base}\nADAPTER .\nTEMPLATE """')
    assert "{{ if .System }}<|system|>{{ .System }}<|end|>{{ end }}<|user|>{{ .Prompt }}<|end|><|assistant|>" in text
    assert 'PARAMETER temperature 0.7\nPARAMETER stop "<|end|>"\n' in text
    assert said.commands == (f"ollama create first --file {tmp_path}/to/Modelfile", "ollama run first")
    assert "from version 0.34.1 on" in said.notes[0]


def test_a_refused_export_leaves_nothing(make_base: Callable[[str], Path], tmp_path: Path) -> None:
    base = make_base("llama")
    adapter = make_adapter(base, tmp_path / "adapter", use_dora=True)
    with pytest.raises(InputError, match="vLLM cannot load this adapter: it is a DoRA adapter") as caught:
        served(base, adapter, tmp_path / "to", "vllm")
    assert caught.value.remedy == "--for vllm --merge" and not list((tmp_path / "to").iterdir())
    merged = served(base, adapter, tmp_path / "merged", "vllm", merge=True, compare=False)
    assert merged.commands == (f"vllm serve {tmp_path}/merged --served-model-name first",)
