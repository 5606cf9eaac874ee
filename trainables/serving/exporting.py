"""Writes an adapter, or the base with it merged, for a server: refused or written, compared, its commands told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from trainables.data import tokenizers
from trainables.hub import sources
from trainables.models import base_folder, companions
from trainables.serving import modelfile, servers
from trainables.serving.servers import Adapter, Base
from trainables.settings import Settings
from tuner.contract import InputError, Served

_ADAPTERS_UNTIL = "0.34.1"
"""The first version of Ollama that makes no model of a Modelfile with ADAPTER."""
_OF_THE_SEARCH = ("manifest.json", "train.yaml")
"""Files of `best/` that are the search's and no part of the adapter."""


def serve(settings: Settings, adapter: Path, to: Path, server: str, name: str, *, merge: bool, compare: bool) -> Served:
    """Writes into the empty folder `to` what `server` needs to serve the adapter in the folder `adapter` as `name`.

    merge: a model with the adapter merged into it. compare: whether to load it by transformers and PEFT alone, in a new
    process, and to compare its logits with the trained model's. Raises InputError; `to` is then empty again.
    """
    servers.require_known(server)
    known = servers.read(adapter)
    folder = base_folder.check(settings.model)
    base = _base(settings, folder)
    if not merge:
        servers.require_loadable(server, known, base, str(adapter))
    tokenizer, _ = tokenizers.load(settings.model, settings.data)
    try:
        return _written(settings, adapter, known, to, server, name, base, tokenizer, merge=merge, compare=compare)
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True, exist_ok=True)
        raise


def _written(
    settings: Settings,
    adapter: Path,
    known: Adapter,
    to: Path,
    server: str,
    name: str,
    base: Base,
    tokenizer: Any,
    *,
    merge: bool,
    compare: bool,
) -> Served:
    trained = None
    if merge or compare:
        from trainables import imports

        with imports.heavy():
            from trainables.models import merging
            from trainables.serving import comparing
    if compare:
        trained = comparing.reference(settings, adapter, tokenizer, merge=merge)
    try:
        if merge:
            merging.merge(settings, adapter, to)
        else:
            _copy(adapter, to)
            text = json.dumps(servers.fitted_config(server, known), indent=2)
            (to / servers.CONFIG).write_text(text + "\n", encoding="utf-8")
            companions.write(tokenizer, base.folder, to)
        notes = _notes(settings, server, merge=merge)
        if server == "ollama":
            notes += _write_modelfile(to, base, tokenizer, merge=merge)
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror or error})", where=str(to),
                         remedy="make room, and export into a new folder") from error  # fmt: skip
    told = ""
    if trained is not None:
        told = comparing.compare(settings, trained, to, base.folder, tokenizer, merged=merge)
    rank = None if merge else known.rank
    return Served(servers.commands(server, name, to, base, rank), notes, told)


def _base(settings: Settings, folder: Path) -> Base:
    model = settings.model
    hub = sources.is_hub_id(model.model_name_or_path)
    return Base(
        name=model.model_name_or_path if hub else str(folder.resolve()),
        revision=model.model_revision if hub else None,
        folder=folder.resolve(),
        config=base_folder.config(model) or {},
        own_code=model.trust_remote_code,
        template=settings.data.chat_template is not None,
        tokenizer=model.tokenizer != model.model_name_or_path,
    )


def _notes(settings: Settings, server: str, *, merge: bool) -> tuple[str, ...]:
    notes = []
    if settings.model.quantization.kind == "nf4" and not merge and server != "peft":
        how = "; vLLM loads it in 4 bits with --quantization bitsandbytes" if server == "vllm" else ""
        notes.append("the adapter was trained over a base in NF4: over a base in another precision, a server computes "
                     f"something else than was trained{how}")  # fmt: skip
    if server == "ollama" and not merge:
        notes.append(f"Ollama makes no model of a Modelfile with ADAPTER from version {_ADAPTERS_UNTIL} on: for those, "
                     "--for ollama --merge")  # fmt: skip
    if server == "llama.cpp" or (server == "ollama" and merge):
        notes.append("the converters are in the repository of llama.cpp, here taken to be in the folder llama.cpp")
    return tuple(notes)


def _write_modelfile(to: Path, base: Base, tokenizer: Any, *, merge: bool) -> tuple[str, ...]:
    """Writes the Modelfile; gives a note where the chat template has no form of Ollama's."""
    file = to / companions.GENERATION
    generation = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def render(messages: list[dict[str, str]], *, generate: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))

    template = modelfile.template_of(render, tokenizer.bos_token or "") if tokenizer.chat_template else None
    ends = generation.get("eos_token_id")
    ids = ends if isinstance(ends, list) else [ends]
    known = [tokenizer.convert_ids_to_tokens(one) for one in ids if isinstance(one, int)]
    stops = [text for text in (tokenizer.eos_token, *known) if isinstance(text, str)]
    source, place = ("./model-f16.gguf", None) if merge else (str(base.folder), ".")
    text = modelfile.modelfile(source, place, template, modelfile.parameters(generation, stops))
    (to / "Modelfile").write_text(text, encoding="utf-8")
    if template is None and tokenizer.chat_template:
        return ("the chat template cannot be written as a template of Ollama's: Ollama takes the one of its base",)
    return ()


def _copy(adapter: Path, to: Path) -> None:
    """Copies an adapter's files: of `best/`, those that its manifest names, but the search's own. Raises OSError."""
    manifest = adapter / "manifest.json"
    named = json.loads(manifest.read_text(encoding="utf-8"))["files"] if manifest.is_file() else None
    for file in sorted(adapter.rglob("*")):
        name = file.relative_to(adapter).as_posix()
        wanted = name not in _OF_THE_SEARCH and (named is None or name in named)
        if wanted and file.is_file() and not file.is_symlink():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to / name, follow_symlinks=False)
