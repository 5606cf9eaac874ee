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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.data import contents
from trainables.data.tokens import Tokens
from trainables.settings import Settings
from tuner.contract import InputError, Preparation

_LAYOUT = 2
"""Version of what is written; part of the fingerprint."""
TOKENIZER_FILES = ("token", "vocab", "merges", "special_tokens", "chat_template", "added_tokens", "spiece", "config")
"""Beginnings of the names of a tokenizer's files."""
PREPARATION = "preparation.json"
ROW = "row"
"""The column with the texts of rows that have images."""
_BATCH = 1000
"""Rows of a batch in a file, as `datasets` has it."""


def fingerprint(settings: Settings) -> str:
    """16 hex digits that change with the rows, the tokenizer, the template, the data settings or the libraries.

    Files on this machine count by their content: a file that was touched, copied or moved changes nothing.
    """
    data, model = settings.data, settings.model
    sources = {"train": data.train, "validation": data.validation, "chat_template": data.chat_template}
    found = {name: contents.of_rows(source) for name, source in sources.items() if source is not None}
    folder = Path(model.tokenizer)
    tokenizer = contents.of_files(folder, TOKENIZER_FILES) if folder.is_dir() else model.tokenizer
    said = {name: value for name, value in data.said().items() if not found.get(name)}
    facts = {
        "layout": _LAYOUT,
        "versions": [version(name) for name in ("transformers", "tokenizers", "trl")],
        "data": said,
        "files": found,
        "tokenizer": [tokenizer, model.model_revision, model.tokenizer_revision],
        **({"answers": True} if settings.metrics.names else {}),  # their sample of rows lies beside the tokenized ones
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
    """Writes sets and a preparation into `folder`. Raises InputError."""
    with Draft(folder) as draft:
        for name, tokens in sets.items():
            draft.writer(name, with_texts=bool(tokens.texts))(tokens)
        draft.finish(preparation)


class Draft:
    """Sets that are written beside `folder`, batch by batch; `finish` renames them to it. A context manager that
    deletes what was not finished. Its methods raise InputError where the disk takes no more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
        self._streams: dict[str, _Stream] = {}

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.abandon()
        shutil.rmtree(self._beside, ignore_errors=True)

    def file(self, name: str) -> Path:
        """The path of a file beside the sets, for who writes it before `finish`."""
        with self._disk():
            self._beside.mkdir(parents=True, exist_ok=True)
        return self._beside / name

    def writer(self, name: str, *, with_texts: bool = False) -> Callable[[Tokens], None]:
        """Begins a set; gives what writes the rows of a `Tokens` behind those that are there. with_texts: whether they
        have `texts`."""
        with self._disk():
            self._streams[name] = stream = _Stream(self._beside / name, with_texts=with_texts)

        def write(tokens: Tokens) -> None:
            with self._disk():
                stream.write(tokens)

        return write

    def fingerprint(self, name: str) -> str:
        """The fingerprint of what trials learn from: equal where another version of a library gives the same token
        ids."""
        with self._disk():
            return self._streams[name].fingerprint()

    def finish(self, preparation: Preparation) -> None:
        """Completes the sets and puts them into their place, unless another process has."""
        with self._disk():
            for stream in self._streams.values():
                stream.close()
            said = {**asdict(preparation), "folder": self._folder.name, "files": _sums(self._beside)}
            said = json.loads(json.dumps(said))
            text = json.dumps({**said, "sha256": _sum_of(said)}, indent=1)
            (self._beside / PREPARATION).write_text(text, encoding="utf-8")
            try:
                self._beside.rename(self._folder)
            except OSError:
                if find(self._folder) is None:
                    raise

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"the tokenized rows cannot be written ({error.strerror or error})",
                             where=str(self._folder.parent),
                             remedy="free some space, or set run.storage_path to another disk") from None  # fmt: skip


class _Stream:
    """A set as `datasets` stores one, in a file of Arrow batches to which rows are appended."""

    def __init__(self, folder: Path, *, with_texts: bool) -> None:
        import datasets
        import pyarrow

        datasets.disable_progress_bars()
        kind = pyarrow.large_list(pyarrow.int32())
        of_texts = [(ROW, pyarrow.large_string())] if with_texts else []
        self._schema = pyarrow.schema([("input_ids", kind), ("labels", kind), *of_texts])
        # `datasets` writes its own files for a row, whose file of rows is then written anew
        made = {"input_ids": [[0]], "labels": [[0]], **({ROW: [""]} if with_texts else {})}
        some = pyarrow.table(made, schema=self._schema)
        datasets.Dataset(datasets.table.InMemoryTable(some)).save_to_disk(str(folder))
        self._file = next(folder.glob("*.arrow"))
        self._stream = self._file.open("wb")
        self._writer = pyarrow.ipc.new_stream(self._stream, self._schema)

    def write(self, tokens: Tokens) -> None:
        import numpy
        import pyarrow

        offsets = pyarrow.array(numpy.concatenate([[0], numpy.frombuffer(tokens.ends, dtype=numpy.int64)]))
        columns = [
            pyarrow.LargeListArray.from_arrays(offsets, pyarrow.array(numpy.frombuffer(values, dtype=numpy.int32)))
            for values in (tokens.input_ids, tokens.labels)
        ]
        columns += [pyarrow.array(tokens.texts, pyarrow.large_string())] if ROW in self._schema.names else []
        self._writer.write_table(pyarrow.table(columns, schema=self._schema), max_chunksize=_BATCH)

    def fingerprint(self) -> str:
        """Of the ids of all rows, then of all labels, then of where each row ends, then of their texts."""
        self.close()
        digest, end = hashlib.sha256(), 0
        for column in ("input_ids", "labels"):
            for batch in self._batches():
                digest.update(batch.column(column).flatten().to_numpy())
        for batch in self._batches():
            ends = batch.column("input_ids").value_lengths().to_numpy().cumsum() + end
            digest.update(ends)
            end = int(ends[-1])
        for batch in self._batches() if ROW in self._schema.names else ():
            for text in batch.column(ROW).to_pylist():
                digest.update(text.encode())
        return digest.hexdigest()[: contents.DIGITS]

    def _batches(self) -> Iterator[Any]:
        import pyarrow

        with self._file.open("rb") as file, pyarrow.ipc.open_stream(file) as reader:
            yield from (batch for batch in reader if batch.num_rows)

    def close(self) -> None:
        if not self._stream.closed:
            self._writer.close()
            self._stream.close()

    def abandon(self) -> None:
        """Closes the file, whatever the disk says."""
        with suppress(OSError):
            self.close()
        with suppress(OSError):
            self._stream.close()


def open_set(preparation: Preparation, name: str) -> Any:
    """Opens a set, "train" or "validation", as a memory-mapped `datasets.Dataset` of input_ids and labels, int32, and
    of `row` where rows have images."""
    import datasets

    return datasets.load_from_disk(str(Path(preparation.folder) / name))


def _sums(folder: Path) -> dict[str, str]:
    return contents.sums(folder, leaving_out=PREPARATION)


def _sum_of(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
