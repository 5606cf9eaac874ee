"""What is shown of a base before anything trains: made of its config, its files' headers and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainables.data import tokenizers
from trainables.hub import client, sources
from trainables.hub.sources import HubSource
from trainables.models import base_folder, memory, positions, stored, summary, tower_memory
from trainables.models.counting import human
from trainables.settings import ModelSettings, Settings
from tuner.contract import BaseLook, InputError, Table

_BATCHES = (1, 4, 16)
"""Rows of a micro-batch for which the memory is told."""
_PRECISIONS = ("bfloat16", "float32", "nf4")
_RANK = 16
_GB = 1e9
_CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather in Oslo?"},
]
_CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}]}  # fmt: skip
_RESULT = {"role": "tool", "name": "weather", "content": "rain"}
_TOOL = {"type": "function", "function": {
    "name": "weather", "description": "Weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "City."}}}}}  # fmt: skip


def look(settings: Settings, packs: str | None, foreseen: Callable[[Any], str | None]) -> BaseLook:
    """What is shown of the base. packs: why these settings cannot be packed. foreseen: the same of a base without
    weights. Raises InputError for what cannot be a base, and for a chat template that renders nothing."""
    from trainables.models import describing

    name, folder = settings.model.model_name_or_path, _folder(settings.model)
    here = {"model_name_or_path": str(folder), "model_revision": None}  # so that nothing else is downloaded
    settings = settings.model_copy(update={"model": settings.model.model_copy(update=here)})
    config = base_folder.config(settings.model) or {}
    found = describing.describe(settings, folder, foreseen)
    tokenizer, notes = tokenizers.load(settings.model, settings.data)
    template, texts = _template(tokenizer, folder, settings)
    why = packs or found.packs
    limit = positions.table_in(config)
    most = summary.positions(config)
    facts = {
        "base": ", ".join([found.kind, f"{human(found.total)} parameters", *summary.layers(config)]),
        "where": name,
        "length": f"a table of {limit:,} positions: longer rows are refused" if limit
        else f"{most:,} positions by config.json, computed: longer rows work, worse" if most
        else "positions are computed, and config.json names no limit",
        "packs": f"no: {why}" if why else "trials share the base on a GPU, as far as its config tells; an engine "
        "measures it before the first trial",
        "chat": template,
    }  # fmt: skip
    tables = [_parts(found), _targets(found, describing.share), _memory(settings, config)]
    data = {**asdict(found), "positions": most, "packs": why, "memory": _bytes(settings, config)}
    return BaseLook(facts, tuple(tables), texts, notes, data)


def _folder(model: ModelSettings) -> Path:
    """The folder of the base's config and tokenizer. Of a base on the hub, no weights are downloaded. Raises
    InputError."""
    source = sources.base_of(model)
    if source is None:
        return base_folder.check(model)
    light = HubSource(source.name, "model", "model.tokenizer_revision", source.revision)
    folder = client.fetch(light)
    base_folder.require_no_adapter(source.name, folder)
    if not (folder / "config.json").is_file():
        raise InputError("has no config.json", where=source.name, expected="a model saved by transformers")
    return folder


def _parts(found: Any) -> Table:
    rows = [(name, human(number), f"{100 * number / found.total:.1f}%") for name, number in found.parts.items()]
    return Table("parts", ("part", "parameters", "share"), tuple(rows))


def _targets(found: Any, share: Callable[[Any, int, int], str]) -> Table:
    from trainables.models.describing import RANKS

    rows, refused = [], []
    for target, adapted in found.targets.items():
        if adapted.refused:
            refused.append(f"{target}: {adapted.refused}")
            continue
        shares = (share(adapted, rank, found.total) for rank in RANKS)
        rows.append((target, str(adapted.modules), human(adapted.weights), *shares))
    columns = ("target_modules", "layers", "of parameters", *(f"trainable, r {rank}" for rank in RANKS))
    return Table("adapts", columns, tuple(rows), "; ".join(refused))


def _memory(settings: Settings, config: dict[str, Any]) -> Table:
    need = _bytes(settings, config)
    columns = ("GPU memory", *(f"{batch} rows" if batch > 1 else "1 row" for batch in _BATCHES))
    length = settings.data.max_length
    below = f"at the peak of a trial of rank {_RANK}, micro-batches of rows of {length:,} tokens (data.max_length)"
    if not need:
        return Table("memory", columns, (), "not known: config.json does not have the sizes of a decoder in the terms "
                     "that the estimate knows")  # fmt: skip
    rows = [(name, *(f"{by[str(batch)] / _GB:.1f} GB" for batch in _BATCHES)) for name, by in need.items()]
    return Table("memory", columns, tuple(rows), below + _of_images(settings, config))


def _of_images(settings: Settings, config: dict[str, Any]) -> str:
    """What an image in a row takes beside it, in words; "" where the base takes none, or the rows' are left out."""
    if not tower_memory.counts(config, settings):
        return ""
    tower, most = tower_memory.shape_of(config), settings.data.max_pixels
    if tower is None:
        return f"; {tower_memory.UNKNOWN}"
    frozen, adapted = (
        tower_memory.need(tower, images=1, max_pixels=most, rank=_RANK, adapted=adapted, bf16=True, nf4=False, others=0)
        for adapted in (False, True)
    )
    return (f"; with an image of {most:,} pixels (data.max_pixels) in each row up to {frozen / _GB:.1f} GB more a row, "
            f"with model.vision adapted {adapted / _GB:.1f} GB, in bfloat16")  # fmt: skip


def _bytes(settings: Settings, config: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Bytes at the peak, by precision and rows of a micro-batch; empty where they are not known."""
    shape = memory.shape_of(config)
    if shape is None:
        return {}
    tensors = base_folder.tensors(settings.model)
    held = stored.stored_in(tensors, shape.vocabulary) if tensors else None
    return {
        precision: {
            str(batch): memory.need(
                shape, slots=1, tokens=batch * settings.data.max_length, rank=_RANK, bf16=precision != "float32",
                nf4=precision == "nf4", packed=False, stored=held,
            ).total
            for batch in _BATCHES
        }
        for precision in _PRECISIONS
    }  # fmt: skip


def _template(tokenizer: Any, folder: Path, settings: Settings) -> tuple[str, dict[str, str]]:
    """What is said of the chat template, and what it renders. Raises InputError for one that renders no plain turns,
    and where a base with a processor has none."""
    where = settings.data.chat_template or settings.model.tokenizer
    if tokenizer.chat_template is None:
        if any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
            raise InputError("the base has a processor, and neither it nor the tokenizer has a chat template",
                             where=where, expected="a chat_template, which says where images and turns stand",
                             remedy="--set data.chat_template=FILE.jinja, from the base's instruction-tuned "
                             "model")  # fmt: skip
        return "no chat template: conversational rows need data.chat_template", {}
    plain = [_CHAT[1], {"role": "assistant", "content": "Rain."}]
    _, refused = _rendered(tokenizer, plain)
    if refused:
        raise InputError(f"the chat template raises on a user's and an assistant's turn: {refused}", where=where,
                         expected="a template that renders conversations",
                         remedy="--set data.chat_template=FILE.jinja")  # fmt: skip
    said = ["the chat template"]
    system, refused = _rendered(tokenizer, _CHAT)
    begin = system or _rendered(tokenizer, _CHAT[1:])[0]
    said.append("takes a system turn" if not refused else f"refuses a system turn ({refused})")
    turns = _CHAT if not refused else _CHAT[1:]
    called, refused = _rendered(tokenizer, [*turns, _CALL, _RESULT], tools=[_TOOL])
    if refused:
        said.append(f"refuses a tool call ({refused})")
    elif "weather" not in called.replace("What is the weather in Oslo?", ""):
        said.append("leaves tool calls out without a word")
    else:
        said.append("takes tools and their calls")
    marks = "generation %}" in json.dumps(tokenizer.chat_template)
    said.append("marks the assistant's turns" if marks else "does not mark the assistant's turns")
    return f"{said[0]} {', '.join(said[1:])}", {"turns": called if not refused else begin}


def _rendered(tokenizer: Any, messages: list[dict[str, Any]], **more: Any) -> tuple[str, str]:
    """The messages as text, and why the template refuses them."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **more)
    except Exception as error:  # of the template: whatever it raises
        return "", (str(error).strip().splitlines() or [type(error).__name__])[0]
    return str(text), ""
