"""Reads rows from files, folders and hub ids. Malformed input is named by file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables.hub import client, local_cache, refusals, sources
from trainables.hub.sources import SUFFIXES, HubSource
from trainables.settings import DataSettings
from tuner.contract import InputError

Row = dict[str, Any]
_EXPECTED = "a .jsonl, .json, .parquet or .csv file, a folder written by `datasets`, or a hub id"


@dataclass(frozen=True)
class Rows:
    """Rows as they were read, with their places in the source, which stay the same when rows are split off or drawn."""

    source: str
    """The path or the hub id, as the settings have it."""
    rows: list[Row]
    """Each row by column."""
    places: Sequence[int] = ()
    """The place of each row in the source, counted from 1; empty where all rows are here in their order."""
    by_line: bool = False
    """Whether `places` are lines of a text file, where a row may take several lines and others are blank."""
    split: str = ""
    """The split in which rows are counted; "" where the source has no splits."""

    def where(self, index: int) -> str:
        """The place of a row, for an error message."""
        place = self.places[index] if self.places else index + 1
        if self.by_line:
            return f"{self.source}:{place}"
        return f"{self.source}{f' ({self.split})' if self.split else ''}, row {place}"

    def select(self, indices: Sequence[int]) -> Rows:
        """Some of the rows, in the order of `indices`."""
        places = self.places or range(1, len(self.rows) + 1)
        return replace(self, rows=[self.rows[i] for i in indices], places=[places[i] for i in indices])


def read(source: str, data: DataSettings, setting: str = "data.revision") -> Rows:
    """Reads all rows of a file, a `datasets` folder or a hub dataset. Raises InputError.

    setting: the name of the setting that has the dataset's revision.
    """
    path = Path(source)
    if path.is_dir():
        found = _folder(path, data)
    elif path.is_file():
        found = _file(path)
    elif sources.is_dataset_id(source):
        found = _hub(next(named for named in sources.rows(data) if named.setting == setting), data)
    else:
        raise InputError("no such file or folder", where=source, expected=_EXPECTED)
    if not found.rows:
        raise InputError("no rows: it is empty", where=source, expected="at least one row")
    return found


def _file(path: Path) -> Rows:
    readers = {".json": _json, ".parquet": _parquet, ".csv": _csv, ".tsv": _csv}
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot tell the format from {suffix or 'a name without suffix'!r}", where=str(path),
                         expected=f"one of {', '.join(SUFFIXES)}")  # fmt: skip
    try:
        return readers.get(suffix, _jsonl)(path)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error.reason} at byte {error.start})", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def _jsonl(path: Path) -> Rows:
    rows: list[Row] = []
    lines: list[int] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"malformed JSON: {error.msg} at column {error.colno}", where=where,
                                 expected="one JSON object a line",
                                 remedy="rename it to .json if it is one JSON array" if number == 1 else "",
                                 ) from None  # fmt: skip
            except (ValueError, RecursionError) as error:
                raise _unreadable(error, where, "one JSON object a line") from None
            if not isinstance(row, dict):
                raise InputError(f"a JSON {_kind(row)}", where=where, expected="one JSON object a line")
            rows.append(row)
            lines.append(number)
    return Rows(str(path), rows, lines, by_line=True)


def _json(path: Path) -> Rows:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig") or "[]")
    except json.JSONDecodeError as error:
        lines = "one object a line: rename it to .jsonl" if error.msg == "Extra data" else ""
        raise InputError(f"malformed JSON: {error.msg} at column {error.colno}", where=f"{path}:{error.lineno}",
                         expected="an array of objects", remedy=lines) from None  # fmt: skip
    except UnicodeDecodeError:
        raise  # `_file` says it in words, as for every text file
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, str(path), "an array of objects") from None
    if isinstance(document, dict):  # {"data": [...]}
        arrays = [value for value in document.values() if isinstance(value, list)]
        document = arrays[0] if len(arrays) == 1 else document
    if not isinstance(document, list):
        raise InputError(f"a JSON {_kind(document)}", where=str(path), expected="an array of objects")
    for number, row in enumerate(document, start=1):
        if not isinstance(row, dict):
            raise InputError(f"a JSON {_kind(row)}", where=f"{path}, row {number}", expected="an object")
    return Rows(str(path), document)


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet

    try:
        return Rows(str(path), pyarrow.parquet.read_table(path).to_pylist())
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise InputError(f"not a Parquet file ({_first_line(error)})", where=str(path)) from None


def _csv(path: Path) -> Rows:
    rows: list[Row] = []
    lines: list[int] = []
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        header: list[str] = []
        begins = 1  # the first line of a record, which may have several
        try:
            for values in reader:
                begins, line = reader.line_num + 1, begins
                if not values:
                    continue
                if not header:
                    header = values
                    continue
                if len(values) != len(header):
                    raise InputError(f"{len(values)} values", where=f"{path}:{line}",
                                     expected=f"{len(header)}, as in the header")  # fmt: skip
                rows.append(dict(zip(header, values, strict=True)))
                lines.append(line)
        except csv.Error as error:
            raise InputError(f"malformed CSV: {error}", where=f"{path}:{begins}") from None
    return Rows(str(path), rows, lines, by_line=True)


def _folder(path: Path, data: DataSettings) -> Rows:
    if not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")):
        raise InputError("a folder that `datasets` did not write", where=str(path), expected=_EXPECTED)
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder: pyarrow, json and datasets each raise their own
        raise InputError(f"cannot be loaded ({_first_line(error)})", where=str(path)) from None
    if isinstance(found, datasets.DatasetDict):
        if data.split not in found:
            raise InputError(f"no split {data.split!r}", where=str(path), expected=f"one of {', '.join(found)}",
                             remedy="set data.split")  # fmt: skip
        return Rows(str(path), found[data.split].to_list(), split=data.split)
    return Rows(str(path), found.to_list())


def _hub(source: HubSource, data: DataSettings) -> Rows:
    import datasets

    datasets.disable_progress_bars()
    why = ""
    try:
        found = local_cache.rows(source, data.name, data.split)
        if found is None:
            why = client.offline_if_unreachable()
            if why and source.is_pinned:  # offline, `datasets` would take whatever commit it read last
                raise refusals.out_of_reach(source, why)
            found = datasets.load_dataset(source.name, data.name, split=data.split, revision=source.revision)
    except InputError:
        raise
    except Exception as error:  # every loader on the hub raises its own
        if told := refusals.out_of_reach(source, why) if why else refusals.in_words(error, source):
            raise told from None
        raise InputError(f"the hub dataset cannot be loaded: {_first_line(error)}", where=source.name,
                         expected=_EXPECTED) from None  # fmt: skip
    return Rows(source.name, found.to_list(), split=data.split)


def _unreadable(error: Exception, where: str, expected: str) -> InputError:
    """The error for JSON that Python's parser refuses: lists a thousand deep, numbers of more than 4,300 digits."""
    what = "nested too deeply" if isinstance(error, RecursionError) else _first_line(error)
    return InputError(what, where=where, expected=expected)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
