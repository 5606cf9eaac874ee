"""Fingerprints of what a trial is made of: the base, its tokenizer, the chat template, the rows. Torch-free.

A search records them when it begins, and a resume with other ones is refused. Files on this machine are fingerprinted
by their content; a base on the hub by its commit and its files in the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.data import contents, store
from trainables.hub import client, sources
from trainables.models import checkpoint, samples
from trainables.settings import ModelSettings, Settings
from tuner.contract import Fault, Reason

MADE_OF = "made_of"
"""Key of the fingerprints among the facts of a preparation."""
BASE = "base"
"""Key of the base's part among the fingerprints."""
EVERY_BYTE = "(every byte)"
"""The end of the source of a part whose fingerprints are of every byte."""
_CONFIGS = ("config.json", "generation_config.json", checkpoint.INDEX)

Part = dict[str, Any]
"""source: its name in the settings, with the revision of a hub id. files: fingerprints by file name."""


def of_model(settings: Settings) -> dict[str, Part]:
    """Fingerprints of the base, its tokenizer and the chat template: of all that a merged model is made of too."""
    model, template = settings.model, settings.data.chat_template
    name, places = model.tokenizer, _places(model)
    own = name != model.model_name_or_path
    files = tuple(start for start in store.TOKENIZER_FILES if own or start != "config")  # the base's part has that
    found = {
        BASE: _mark_every_byte(model, _part(model.model_name_or_path, model.model_revision, _base(model, places))),
        "tokenizer": _part(name, _revision(model), contents.of_files(places[name], files)),
    }
    return found | ({"chat template": _part(template, None, contents.of_path(Path(template)))} if template else {})


def of_rows(settings: Settings) -> dict[str, Part]:
    """Fingerprints of the files with rows. A dataset on the hub has no files here: its `source` has the commit."""
    data = settings.data
    found = {"training rows": _part(_said(data.train), data.revision, contents.of_rows(data.train))}
    if data.validation is not None:
        files, revision = contents.of_rows(data.validation), data.validation_revision or data.revision
        found["validation rows"] = _part(_said(data.validation), revision, files)
    return found


def of_adapter(settings: Settings) -> dict[str, Part]:
    """Fingerprints of the adapter that training goes on from; none where it begins with a new one."""
    name = settings.train.init_adapter
    files = ("adapter_config.json", "adapter_model.")
    return {"adapter": _part(name, None, contents.of_files(Path(name), files))} if name else {}


def _said(given: str | tuple[str, ...]) -> str:
    return ", ".join(sources.names(given))


def of_ids(settings: Settings, files: Mapping[str, str]) -> dict[str, Part]:
    """The part of the token ids, whose `source` stands for all settings that they depend on.

    files: the fingerprint of each set's ids, by the set's name.
    """
    model = settings.model
    said = [settings.data.said(), model.tokenizer, model.model_revision, model.tokenizer_revision]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    return {"token ids": _part(f"(settings {digest})", None, files)}


def require_same_base(model: ModelSettings, facts: Mapping[str, Any]) -> None:
    """Raises Fault where the base on this machine is not the one that the rows were prepared with: it has changed
    since, or this node has another one at the same path. facts: of the preparation."""
    known = facts.get(MADE_OF, {}).get(BASE)
    if known is None:
        return
    now = _base(model, _places(model))
    changed = sorted(name for name in {*now, *known["files"]} if now.get(name) != known["files"].get(name))
    if changed:
        raise Fault(
            Reason.CONFIG,
            f"the base {model.model_name_or_path} on this machine is not the one that the search began with: "
            f"{checkpoint.listed(changed)} changed",
            "put the files back, the same on every node",
        )


def _part(source: str, revision: str | None, files: Mapping[str, str]) -> Part:
    pinned = f"{source}@{revision}" if revision and sources.is_hub_id(source) else source
    return {"source": pinned, "files": dict(files)}


def _mark_every_byte(model: ModelSettings, part: Part) -> Part:
    """Marks a part whose fingerprints are of every byte: they must not be compared with fingerprints of samples."""
    return {**part, "source": f"{part['source']} {EVERY_BYTE}"} if model.fingerprint == "whole" else part


def _places(model: ModelSettings) -> dict[str, Path]:
    """The folders of the base and its tokenizer, by their names in the settings."""
    fetched = {source.name: client.fetch(source) for source in sources.bases(model)}
    return {name: fetched.get(name, Path(name)) for name in (model.model_name_or_path, model.tokenizer)}


def _revision(model: ModelSettings) -> str | None:
    return model.model_revision if model.tokenizer == model.model_name_or_path else model.tokenizer_revision


def _base(model: ModelSettings, places: Mapping[str, Path]) -> dict[str, str]:
    folder = places[model.model_name_or_path]
    found = {name: contents.of_file(folder / name) for name in _CONFIGS if (folder / name).is_file()}
    if model.trust_remote_code:
        found |= {file.name: contents.of_file(file) for file in sorted(folder.glob("*.py"))}
    every_byte = model.fingerprint == "whole"
    return found | {file.name: samples.of_weights(file, every_byte=every_byte) for file in checkpoint.files(folder)}
