"""What servers refuse of an adapter, and their commands."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from trainables.serving import servers
from trainables.serving.servers import Adapter, Base
from tuner.contract import InputError

PREFIX = "base_model.model."
Q = "model.layers.0.self_attn.q_proj"


def write_header(file: Path, names: list[str]) -> None:
    """Writes a safetensors file of tensors [2, 2] float32."""
    said = {name: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * at, 16 * at + 16]}
            for at, name in enumerate(names)}  # fmt: skip
    text = json.dumps(said).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16 * len(names)))


def adapter(modules: tuple[str, ...] = (Q,), more: tuple[str, ...] = (), rank: int = 4, **config: Any) -> Adapter:
    pairs = {f"{PREFIX}{name}.lora_A.weight": (rank, 8) for name in modules}
    pairs |= {f"{PREFIX}{name}.lora_B.weight": (8, rank) for name in modules}
    pairs |= {f"{PREFIX}{name}": (8,) for name in more}
    return Adapter({"r": rank, "lora_alpha": 32, "bias": "none", "modules_to_save": None, **config}, pairs)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    write_header(tmp_path / "model.safetensors", [f"{Q}.weight", "lm_head.weight"])
    return Base("org/name", "c0ffee", tmp_path, {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})


@pytest.mark.parametrize("server", servers.SERVERS)
def test_a_plain_adapter_is_taken_by_all(server: str, base: Base) -> None:
    servers.require_loadable(server, adapter(), base, "best")


@pytest.mark.parametrize("server", ["vllm", "ollama", "llama.cpp"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (adapter(use_dora=True, more=(f"{Q}.lora_magnitude_vector",)), "it is a DoRA adapter"),
        (adapter(modules_to_save=["lm_head"]), r"trains whole modules too \(modules_to_save: lm_head\)"),
        (adapter(bias="lora_only"), "trains biases"),
        (adapter(init_lora_weights="pissa"), r"the base's own weights \(pissa\)"),
        (adapter(target_parameters=["mlp.experts.gate_up_proj"]), "experts that are stored as one tensor"),
        (adapter(alpha_pattern={"q_proj": 8}), "ranks or scales of their own"),
        (adapter(more=("model.embed_tokens.weight",)), "no LoRA pair: base_model.model.model.embed_tokens.weight"),
    ],
)
def test_what_no_server_computes_is_refused(server: str, given: Adapter, told: str, base: Base) -> None:
    with pytest.raises(InputError, match=told) as caught:
        servers.require_loadable(server, given, base, "best")
    assert caught.value.remedy == f"--for {server} --merge" and caught.value.where == "best"
    servers.require_loadable("peft", given, base, "best")


def test_vllm_would_leave_out_modules_of_another_name(base: Base) -> None:
    with pytest.raises(InputError, match="1 of 1 adapted modules have no tensor of their name"):
        write_header(base.folder / "model.safetensors", [f"model.language_model.{Q.removeprefix('model.')}.weight"])
        servers.require_loadable("vllm", adapter(), base, "best")
    inner = Q.removeprefix("model.")
    servers.require_loadable("vllm", adapter((f"model.language_model.{inner}",)), base, "best")
    servers.require_loadable("vllm", adapter((f"language_model.model.{inner}",)), base, "best")
    write_header(base.folder / "model.safetensors", ["layers.0.self_attn.q_proj.weight"])
    servers.require_loadable("vllm", adapter(), base, "best")


def test_vllm_is_given_a_rank_that_it_allows(base: Base, tmp_path: Path) -> None:
    found = {rank: servers.commands("vllm", "first", tmp_path / "to", base, rank)[0] for rank in (1, 9, 200, 512)}
    ranks = [command.split("--max-lora-rank ")[1].split()[0] for command in found.values()]
    assert ranks == ["1", "16", "256", "512"]
    assert found[9] == (
        f"vllm serve org/name --revision c0ffee --enable-lora --max-lora-rank 16 --lora-modules first={tmp_path}/to"
    )
    with pytest.raises(InputError, match="its rank is 513, the largest that vLLM takes is 512"):
        servers.require_loadable("vllm", adapter(rank=513), base, "best")


def test_a_template_of_the_searchs_own_is_served(tmp_path: Path) -> None:
    base = Base("/base", None, tmp_path, {}, own_code=True, template=True, tokenizer=True)
    (command,) = servers.commands("vllm", "first", Path("/to dir"), base, 8)
    assert "--tokenizer '/to dir' --chat-template '/to dir/chat_template.jinja' --enable-lora" in command
    assert command.endswith("--lora-modules 'first=/to dir' --trust-remote-code") and "--revision" not in command


def test_rslora_is_a_plain_scale_where_the_server_knows_none(base: Base) -> None:
    given = adapter(rank=8, use_rslora=True)
    assert servers.fitted_config("vllm", given) is given.config
    fitted = servers.fitted_config("llama.cpp", given)
    assert fitted["use_rslora"] is False and fitted["lora_alpha"] / 8 == pytest.approx(32 / math.sqrt(8))
    with pytest.raises(InputError, match=r"lora_alpha 90\.510, and Ollama reads whole numbers"):
        servers.require_loadable("ollama", given, base, "best")
    whole = adapter(rank=16, use_rslora=True)
    servers.require_loadable("ollama", whole, base, "best")
    assert json.dumps(servers.fitted_config("ollama", whole)["lora_alpha"]) == "128"


def test_ollama_takes_adapters_of_some_families(base: Base) -> None:
    other = Base("org/name", None, base.folder, {"model_type": "qwen3"})
    with pytest.raises(InputError, match="its base is a qwen3: Ollama takes adapters of llama, mistral, gemma2"):
        servers.require_loadable("ollama", adapter(), other, "best")


def test_llama_cpp_converts_the_base_and_the_adapter(base: Base) -> None:
    whole, half, serve = servers.commands("llama.cpp", "first", Path("/to"), base, 8)
    assert whole == (f"python llama.cpp/convert_hf_to_gguf.py {base.folder} --outtype f16 --outfile /to/model-f16.gguf")
    assert half == (
        f"python llama.cpp/convert_lora_to_gguf.py /to --base {base.folder} --outtype f16 "
        "--outfile /to/adapter-f16.gguf"
    )
    assert serve == "llama-server --model /to/model-f16.gguf --alias first --jinja --lora /to/adapter-f16.gguf"
    merged = servers.commands("llama.cpp", "first", Path("/to"), base, None)
    assert len(merged) == 2 and merged[0].split()[2] == "/to"


def test_a_server_of_another_name() -> None:
    with pytest.raises(InputError, match="no server 'tgi'") as caught:
        servers.require_known("tgi")
    assert caught.value.expected == "one of vllm, ollama, llama.cpp, peft"


def test_an_adapter_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no adapter_model\.safetensors"):
        servers.read(tmp_path)
    write_header(tmp_path / servers.WEIGHTS, [f"{PREFIX}{Q}.lora_A.weight"])
    for text in ("{", "[]"):
        (tmp_path / servers.CONFIG).write_text(text)
        with pytest.raises(InputError, match=r"cannot be read|no JSON object"):
            servers.read(tmp_path)
