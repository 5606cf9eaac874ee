"""What servers load of an adapter, what they refuse, and the commands that serve it. Torch-free.

The limits are those of vLLM's `PEFTHelper` and `LoRAConfig`, of Ollama's documents and its conversion of adapters, and
of llama.cpp's `convert_lora_to_gguf.py`. docs/serving.md lists them.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.models import checkpoint
from trainables.settings.train import CHANGES_BASE
from tuner.contract import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SERVERS = ("vllm", "ollama", "llama.cpp", "peft")
TITLES = {"vllm": "vLLM", "ollama": "Ollama", "llama.cpp": "llama.cpp", "peft": "PEFT"}

_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM allows for --max-lora-rank."""
_OLLAMA_TYPES = ("llama", "mistral", "gemma2")
"""Model types of bases whose adapters Ollama converts: it knows the names of the tensors of Llama and of Gemma 2."""
_GGUF = ("llama.cpp", "ollama")
"""Servers that take an adapter as llama.cpp does: its tensors, and lora_alpha."""
_PAIR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_[AB]\.weight")
"""Matches the name of a tensor of a LoRA pair on a module."""
_ROOTS = frozenset(["model", "language_model", "transformer", "gpt_neox"])
"""First names of a decoder's modules. Checkpoints have them in another order, or without some; `language_model` alone
says which part of a model is meant."""


@dataclass(frozen=True)
class Adapter:
    """An adapter in PEFT's form."""

    config: Mapping[str, Any]
    """The content of its adapter_config.json."""
    tensors: Mapping[str, tuple[int, ...]]
    """The shapes of its tensors by name."""

    @property
    def rank(self) -> int:
        """The largest rank of a pair."""
        ranks = [shape[0] for name, shape in self.tensors.items() if ".lora_A." in name and shape]
        return max([int(self.config.get("r") or 0), *ranks])

    @property
    def modules(self) -> list[str]:
        """Names of the modules that have a LoRA pair."""
        found = (_PAIR.fullmatch(name) for name in self.tensors)
        return sorted({match["module"] for match in found if match})


@dataclass(frozen=True)
class Base:
    """The base that a server loads."""

    name: str
    """The hub id, or the absolute path of its folder."""
    revision: str | None
    """The commit, for a hub id."""
    folder: Path
    """Where its files are on this machine."""
    config: Mapping[str, Any]
    """The content of its config.json."""
    own_code: bool = False
    """Whether it runs code of its own."""
    template: bool = False
    """Whether the search gave it another chat template."""
    tokenizer: bool = False
    """Whether the search gave it another tokenizer."""


def read(folder: Path) -> Adapter:
    """Reads the adapter in `folder`. Raises InputError."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"has no {WEIGHTS}", where=str(folder), expected="an adapter in safetensors")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read ({error})", where=str(folder / CONFIG), expected="PEFT's config") from None
    if not isinstance(config, dict):
        raise InputError("is no JSON object", where=str(folder / CONFIG), expected="PEFT's config")
    return Adapter(config, {name: tensor.shape for name, tensor in checkpoint.header(folder / WEIGHTS).items()})


def require_known(server: str) -> None:
    """Raises InputError for a server of another name."""
    if server not in SERVERS:
        raise InputError(f"no server {server!r}", where="--for", expected=f"one of {', '.join(SERVERS)}")


def require_loadable(server: str, adapter: Adapter, base: Base, where: str) -> None:
    """Raises InputError where the server refuses the adapter, or would load it and compute something else."""
    found = problems(server, adapter, base)
    if found:
        raise InputError(
            f"{TITLES[server]} cannot load this adapter: {'; '.join(found)}",
            where=where,
            expected="an adapter that it can load, or a merged model",
            remedy=f"--for {server} --merge",
        )


def problems(server: str, adapter: Adapter, base: Base) -> list[str]:
    """Why a server cannot serve the adapter as it was trained; empty where it can."""
    if server == "peft":
        return []
    config = adapter.config
    found = [
        *(["it is a DoRA adapter"] if config.get("use_dora") else []),
        *([f"it trains whole modules too (modules_to_save: {saved})"] if (saved := _saved(config)) else []),
        *([f"it trains biases (bias: {config['bias']})"] if config.get("bias", "none") != "none" else []),
        *(_started_from_base(config)),
        *(_not_one_scale(adapter)),
    ]
    if server == "vllm":
        if adapter.rank > _VLLM_RANKS[-1]:
            found.append(f"its rank is {adapter.rank}, the largest that vLLM takes is {_VLLM_RANKS[-1]}")
        found += _without_place(adapter, base)
    if server == "ollama":
        kind = str(base.config.get("model_type") or "unknown")
        if kind not in _OLLAMA_TYPES:
            found.append(f"its base is a {kind}: Ollama takes adapters of {', '.join(_OLLAMA_TYPES)}")
        elif (alpha := scale(adapter) * int(config.get("r") or 1)) != int(alpha):
            found.append(f"its scale is that of lora_alpha {alpha:.3f}, and Ollama reads whole numbers")
    return found


def scale(adapter: Adapter) -> float:
    """The factor of the adapter's product: lora_alpha by the rank, or with rsLoRA by the root of the rank."""
    rank = int(adapter.config.get("r") or 1)
    alpha = float(adapter.config.get("lora_alpha") or rank)
    return alpha / math.sqrt(rank) if adapter.config.get("use_rslora") else alpha / rank


def fitted_config(server: str, adapter: Adapter) -> Mapping[str, Any]:
    """The adapter_config.json for a server. Servers that know no rsLoRA divide lora_alpha by the rank: there lora_alpha
    is the one that gives the same scale."""
    if server not in _GGUF or not adapter.config.get("use_rslora"):
        return adapter.config
    alpha = scale(adapter) * int(adapter.config["r"])
    return {**adapter.config, "use_rslora": False, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha}


def commands(server: str, name: str, to: Path, base: Base, rank: int | None) -> tuple[str, ...]:
    """What to run to serve what was written to `to` under `name`. rank: of the adapter; None for a merged model."""
    return _COMMANDS[server](name, to, base, rank)


def _saved(config: Mapping[str, Any]) -> str:
    return ", ".join(map(str, config.get("modules_to_save") or config.get("trainable_token_indices") or ()))


def _started_from_base(config: Mapping[str, Any]) -> list[str]:
    start = config.get("init_lora_weights")
    if start not in CHANGES_BASE:
        return []
    return [f"it started from the base's own weights ({start}), which a server does not take out of the base"]


def _not_one_scale(adapter: Adapter) -> list[str]:
    """Where an adapter has something that servers pass over: adapted parameters (experts in one tensor), ranks and
    scales by module, tensors that are in no LoRA pair."""
    config = adapter.config
    if config.get("target_parameters"):
        return ["it adapts experts that are stored as one tensor, whose names each server reads in another way"]
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        return ["its modules have ranks or scales of their own (rank_pattern, alpha_pattern)"]
    other = sorted(name for name in adapter.tensors if not _PAIR.fullmatch(name) and "magnitude" not in name)
    return [f"it has tensors that are no LoRA pair: {checkpoint.listed(other, 2)}"] if other else []


def _without_place(adapter: Adapter, base: Base) -> list[str]:
    """vLLM finds an adapter's modules by their names in the checkpoint, and leaves out what it does not find."""
    if base.own_code:
        return []
    held = {_place(name.removesuffix(".weight")) for file in checkpoint.files(base.folder)
            for name in checkpoint.header(file)}  # fmt: skip
    lost = [name for name in adapter.modules if _place(name) not in held]
    if not lost:
        return []
    return [f"{len(lost)} of {len(adapter.modules)} adapted modules have no tensor of their name in the base's "
            f"checkpoint, and would be left out: {checkpoint.listed(lost, 2)}"]  # fmt: skip


def _place(name: str) -> tuple[bool, str]:
    """Whether a module is in the language part of a larger model, and its name without the first names."""
    parts = name.split(".")
    start = next((at for at, part in enumerate(parts) if part not in _ROOTS), len(parts))
    return "language_model" in parts[:start], ".".join(parts[start:])


def _vllm(name: str, to: Path, base: Base, rank: int | None) -> tuple[str, ...]:
    code = ["--trust-remote-code"] if base.own_code else []
    if rank is None:
        return (shlex.join(["vllm", "serve", str(to), "--served-model-name", name, *code]),)
    most = next(allowed for allowed in _VLLM_RANKS if allowed >= rank)
    words = ["vllm", "serve", base.name]
    words += ["--revision", base.revision] if base.revision else []
    words += ["--tokenizer", str(to)] if base.tokenizer else []
    words += ["--chat-template", str(to / "chat_template.jinja")] if base.template else []
    words += ["--enable-lora", "--max-lora-rank", str(most), "--lora-modules", f"{name}={to}"]
    return (shlex.join([*words, *code]),)


def _llama_cpp(name: str, to: Path, base: Base, rank: int | None) -> tuple[str, ...]:
    model = to / "model-f16.gguf"
    convert = ["python", "llama.cpp/convert_hf_to_gguf.py", str(to if rank is None else base.folder)]
    whole = shlex.join([*convert, "--outtype", "f16", "--outfile", str(model)])
    served = ["llama-server", "--model", str(model), "--alias", name, "--jinja"]
    if rank is None:
        return whole, shlex.join(served)
    adapter = to / "adapter-f16.gguf"
    convert = ["python", "llama.cpp/convert_lora_to_gguf.py", str(to), "--base", str(base.folder)]
    half = shlex.join([*convert, "--outtype", "f16", "--outfile", str(adapter)])
    served += ["--chat-template-file", str(to / "chat_template.jinja")] if base.template else []
    return whole, half, shlex.join([*served, "--lora", str(adapter)])


def _ollama(name: str, to: Path, base: Base, rank: int | None) -> tuple[str, ...]:
    made = shlex.join(["ollama", "create", name, "--file", str(to / "Modelfile")])
    started = shlex.join(["ollama", "run", name])
    return (_llama_cpp(name, to, base, None)[0], made, started) if rank is None else (made, started)


def _peft(name: str, to: Path, base: Base, rank: int | None) -> tuple[str, ...]:
    said = str((base.config.get("architectures") or [""])[0])
    kind = "AutoModelForImageTextToText" if said.endswith("ForConditionalGeneration") else "AutoModelForCausalLM"
    code = ", trust_remote_code=True" if base.own_code else ""
    at = f", revision={base.revision!r}" if base.revision else ""
    whole = [f"model = {kind}.from_pretrained({str(to)!r}{code})"]
    adapted = [
        "from peft import PeftModel",
        f"model = {kind}.from_pretrained({base.name!r}{at}{code})",
        f"model = PeftModel.from_pretrained(model, {str(to)!r})",
    ]
    return (
        f"from transformers import AutoTokenizer, {kind}",
        *(whole if rank is None else adapted),
        f"tokenizer = AutoTokenizer.from_pretrained({str(to)!r}{code})",
    )


_COMMANDS: Mapping[str, Callable[[str, Path, Base, int | None], tuple[str, ...]]] = {
    "vllm": _vllm, "ollama": _ollama, "llama.cpp": _llama_cpp, "peft": _peft,
}  # fmt: skip
