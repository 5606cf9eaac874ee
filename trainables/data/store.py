"""Keeps the tokenized rows on disk, under a fingerprint of all they depend on.

`<cache>/<fingerprint>/` holds `train/` and `validation/` (Arrow, memory-mapped by every worker) and
`preparation.json`. It is written beside its place and then renamed, so that it is complete if it exists. If two
processes write it, the second finds it there and deletes its own copy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.data import contents
from trainables.data.tokenizing import Tokens
from trainables.settings import Settings
from tuner.contract import InputError, Preparation

_LAYOUT = 2
"""Version of what is written; part of the fingerprint."""
TOKENIZER_FILES = ("token", "vocab", "merges", "special_tokens", "chat_template", "added_tokens", "spiece", "config")
"""Beginnings of the names of a tokenizer's files."""
PREPARATION = "preparation.json"


def fingerprint(settings: Settings) -> str:
    """16 hex digits that change with the rows, the tokenizer, the template, the data settings or the libraries.

    Files on this machine count by their content: a file that was touched, copied or moved changes nothing.
    """
    data, model = settings.data, settings.model
    sources = {"train": data.train, "validation": data.validation, "chat_template": data.chat_template}
    found = {name: contents.of_rows(source) for name, source in sources.items() if source is not None}
    folder = Path(model.tokenizer)
    tokenizer = contents.of_files(folder, TOKENIZER_FILES) if folder.is_dir() else model.tokenizer
    facts = {
        "layout": _LAYOUT,
        "versions": [version(name) for name in ("transformers", "tokenizers", "trl")],
        "data": data.model_dump(exclude={name for name, files in found.items() if files}),
        "files": found,
        "tokenizer": [tokenizer, model.model_revision, model.tokenizer_revision],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def find(folder: Path) -> Preparation | None:
    """What an earlier run prepared in `folder`, if all its files are as they were written; else None."""
    try:
        if not (folder / PREPARATION).is_file():  # a pipe would block
            return None
        found = json.loads((folder / PREPARATION).read_text(encoding="utf-8"))
        if found.pop("sha256", None) != _sum_of(found) or found["files"] != _sums(folder):
            return None
        return Preparation(str(folder), found["tokens"], found["facts"], tuple(found["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def drop(folder: Path) -> bool:
    """Deletes a folder that `find` has refused, so that the rows are tokenized again. Whether there was one."""
    if not folder.exists():
        return False
    aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        folder.rename(aside)  # a process that has its files open can still read them
    except OSError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def save(folder: Path, sets: dict[str, Tokens], preparation: Preparation) -> None:
    """Writes the sets and the preparation beside `folder`, then renames that to `folder`. Raises InputError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        for name, tokens in sets.items():
            _save_set(beside / name, tokens)
        said = {**asdict(preparation), "folder": folder.name, "files": _sums(beside)}
        said = json.loads(json.dumps(said))
        text = json.dumps({**said, "sha256": _sum_of(said)}, indent=1)
        (beside / PREPARATION).write_text(text, encoding="utf-8")
        try:
            beside.rename(folder)
        except OSError:
            if find(folder) is None:
                raise
    except OSError as error:
        raise InputError(f"the tokenized rows cannot be written ({error.strerror or error})", where=str(folder.parent),
                         remedy="free some space, or set run.storage_path to another disk") from None  # fmt: skip
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def open_set(preparation: Preparation, name: str) -> Any:
    """Opens a set, "train" or "validation", as a memory-mapped `datasets.Dataset` of input_ids and labels, int32."""
    import datasets

    return datasets.load_from_disk(str(Path(preparation.folder) / name))


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but preparation.json, by path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != PREPARATION)
    return {p.relative_to(folder).as_posix(): _sum(p) for p in files}


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sum_of(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _save_set(folder: Path, tokens: Tokens) -> None:
    import datasets
    import numpy
    import pyarrow

    datasets.disable_progress_bars()
    offsets = pyarrow.array(numpy.concatenate([[0], numpy.frombuffer(tokens.ends, dtype=numpy.int64)]))
    columns = {
        name: pyarrow.LargeListArray.from_arrays(offsets, pyarrow.array(numpy.frombuffer(values, dtype=numpy.int32)))
        for name, values in (("input_ids", tokens.input_ids), ("labels", tokens.labels))
    }
    table = datasets.table.InMemoryTable(pyarrow.table(columns))
    datasets.Dataset(table).save_to_disk(str(folder))
