"""Reads the rows of one file. Malformed input is named by file and line."""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.data.findings import listed
from trainables.data.rows import ArrowRows, JsonRows, Part, Records, Row, Rows
from trainables.data.text_files import kind_of, not_utf8, read_bytes, read_utf8, refuse_stand_ins
from trainables.hub.refusals import first_line
from trainables.hub.sources import COMPRESSIONS, SUFFIXES
from trainables.settings import DataSettings
from tuner.contract import InputError

_SEPARATORS = {",": "a comma", ";": "';'", "\t": "a tab", "|": "'|'"}


def is_readable(path: Path) -> bool:
    """Whether the ending of a file's name is one of files with rows."""
    return kind_of(path)[0] in SUFFIXES


def read_file(path: Path, data: DataSettings) -> dict[str, Rows]:
    """The rows of a file by split; one without a name where it has no splits. Raises InputError."""
    kind = kind_of(path)[0]
    if kind not in SUFFIXES:
        raise InputError(f"cannot tell the format from {kind or 'a name without suffix'!r}", where=str(path),
                         expected=f"one of {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSIONS)}")  # fmt: skip
    refuse_stand_ins(path, kind)
    if kind == ".parquet":
        return {"": _parquet(path)}
    text = read_utf8(path, data.encoding)
    if kind == ".txt":
        return {"": _lines(path, text)}
    if kind in (".csv", ".tsv"):
        return {"": _csv(path, text, "\t" if kind == ".tsv" else "")}
    is_array = text[:200].lstrip()[:1] == b"["
    if kind == ".json" or (is_array and not _is_object_a_line(text)):
        return _json(path, text)
    return {"": _jsonl(path, text)}


def _is_object_a_line(text: bytes) -> bool:
    """Whether the first line is JSON by itself, and not the beginning of an array."""
    try:
        json.loads(text.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return b"\n" in text.strip()


def _jsonl(path: Path, text: bytes) -> Rows:
    begins, ends, lines = array("q"), array("q"), array("q")
    begin, number, size = 0, 0, len(text)
    while begin < size:
        end = text.find(b"\n", begin)
        end, number = size if end < 0 else end, number + 1
        line = text[begin:end]
        if line.strip():
            _require_object(line, text, begin, path, number)
            begins.append(begin)
            ends.append(end)
            lines.append(number)
        begin = end + 1
    return _whole(path, JsonRows(text, begins, ends), lines)


def _require_object(line: bytes, text: bytes, begin: int, path: Path, number: int) -> None:
    where = f"{path}:{number}"
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise not_utf8(error, text, begin, where) from None
    except json.JSONDecodeError as error:
        raise InputError(f"malformed JSON: {error.msg} at column {error.colno}", where=where,
                         expected="one JSON object a line", remedy=_to_json_lines(line, path)) from None  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, where, "one JSON object a line") from None
    if not isinstance(row, dict):
        raise InputError(f"a JSON {_kind(row)}", where=where, expected="one JSON object a line")


def _to_json_lines(line: bytes, path: Path) -> str:
    """How a file becomes one of JSON lines, by its first line that is none; "" where that says nothing."""
    start = line.strip()
    if start in (b"{", b"["):
        return f"jq -c . {path.name} > lines.jsonl"
    if start.startswith((b"{'", b"[{'")):
        return "write the rows with json.dumps: this is Python's own notation"
    return ""


def _json(path: Path, text: bytes) -> dict[str, Rows]:
    try:
        document = json.loads(text.decode() or "[]")
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line, as much that is called .json has it
            return {"": _jsonl(path, text)}
        raise InputError(f"malformed JSON: {error.msg} at column {error.colno}", where=f"{path}:{error.lineno}",
                         expected="an array of objects, or one object a line") from None  # fmt: skip
    except UnicodeDecodeError as error:
        raise not_utf8(error, text, 0, str(path)) from None
    except (ValueError, RecursionError) as error:
        raise _unreadable(error, str(path), "an array of objects") from None
    if isinstance(document, dict):
        if found := _of_object(document, path):
            return found
        keys = f" with {listed(document, 6)}" if document else ""
        raise InputError(f"a JSON object{keys}", where=str(path),
                         expected="an array of objects, an object with one, or one with a list for each "
                         "column")  # fmt: skip
    if not isinstance(document, list):
        raise InputError(f"a JSON {_kind(document)}", where=str(path), expected="an array of objects")
    return {"": _objects(path, document)}


def _of_object(document: Mapping[str, Any], path: Path) -> dict[str, Rows]:
    """The rows of one object: a list of rows, a list for each split, or a list for each column; none in any other."""
    lists = {key: value for key, value in document.items() if isinstance(value, list)}
    of_rows = {key: value for key, value in lists.items() if value and all(isinstance(row, dict) for row in value)}
    sizes = {len(value) for value in lists.values()}
    if len(lists) == 1 and (of_rows or not next(iter(lists.values()))):
        return {"": _objects(path, next(iter(lists.values())))}
    if (
        len(of_rows) > 1
        and len(of_rows) == len(lists)
        and any(key.startswith(("train", "val", "test")) for key in lists)
    ):
        return {key: _objects(path, value, split=key) for key, value in of_rows.items()}
    if len(lists) == len(document) and len(sizes) == 1 and sizes != {0}:
        records = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        return {"": _objects(path, records)}
    if len(lists) == 1 and len(document) > 1:
        return {"": _objects(path, next(iter(lists.values())))}
    columns = [value for value in document.values() if isinstance(value, dict)]
    if document and len(columns) == len(document) and all(value.keys() == columns[0].keys() for value in columns):
        if all(key.isdigit() for key in document) and not all(key.isdigit() for key in columns[0]):
            return {"": _objects(path, columns)}  # pandas writes both, this one as orient="index"
        records = [{name: values[key] for name, values in document.items()} for key in columns[0]]
        return {"": _objects(path, records)}
    return {}


def _objects(path: Path, rows: Sequence[Any], split: str = "") -> Rows:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"a JSON {_kind(row)}", where=f"{path}, row {number}", expected="an object")
    return _whole(path, rows, split=split)


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet

    try:
        compressed = bool(kind_of(path)[1])
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(read_bytes(path)) if compressed else path)
        return _whole(path, ArrowRows(table, str(path)), is_arrow=True)
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise InputError(f"not a Parquet file ({first_line(error)})", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def _lines(path: Path, text: bytes) -> Rows:
    records: list[list[str]] = []
    lines = array("q")
    begin = 0
    for number, line in enumerate(text.split(b"\n"), start=1):
        try:
            words = line.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise not_utf8(error, text, begin, f"{path}:{number}") from None
        if words.strip():
            records.append([words])
            lines.append(number)
        begin += len(line) + 1
    return _whole(path, Records(["text"], records), lines, remark=f"{path.name}: each line is a row")


def _csv(path: Path, text: bytes, separator: str) -> Rows:
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        number = text[: error.start].count(b"\n") + 1
        raise not_utf8(error, text, 0, f"{path}:{number}") from None
    separator = separator or _separator(decoded)
    del decoded
    records: list[list[str]] = []
    lines = array("q")
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(text), "utf-8", newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    begins = 1  # the first line of a record, which may have several
    try:
        for values in reader:
            begins, line = reader.line_num + 1, begins
            if not values:
                continue
            if not header:
                header = values
                if len(set(header)) < len(header):
                    twice = next(name for name in header if header.count(name) > 1)
                    raise InputError(f"two columns are called {twice!r}", where=f"{path}:{line}",
                                     expected="names that differ")  # fmt: skip
                continue
            if len(values) != len(header):
                raise InputError(f"{len(values)} values", where=f"{path}:{line}",
                                 expected=f"{len(header)}, as in the header ({_SEPARATORS[separator]} between "
                                 "them)")  # fmt: skip
            records.append(values)
            lines.append(line)
    except csv.Error as error:
        raise InputError(f"malformed CSV: {error}", where=f"{path}:{begins}",
                         expected=f"{_SEPARATORS[separator]} between values, and quotes doubled within "
                         "quotes") from None  # fmt: skip
    remark = "" if separator in ",\t" else f"{path.name}: columns are separated by {_SEPARATORS[separator]}"
    return _whole(path, Records(header, records), lines, remark=remark)


def _separator(text: str) -> str:
    """The separator with which the header has the most columns; a comma where none has more than another."""
    header = text.lstrip().split("\n", 1)[0].rstrip("\r")

    def columns(separator: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=separator), []))
        except csv.Error:
            return 1

    return max(_SEPARATORS, key=columns)


def _whole(
    path: Path,
    rows: Sequence[Row],
    lines: Sequence[int] = (),
    *,
    split: str = "",
    is_arrow: bool = False,
    remark: str = "",
) -> Rows:
    part = Part(str(path), len(rows), lines, split, is_arrow)
    return Rows(str(path), rows, (part,), remarks=(remark,) if remark else ())


def _unreadable(error: Exception, where: str, expected: str) -> InputError:
    """The error for JSON that Python's parser refuses: lists a thousand deep, numbers of more than 4,300 digits."""
    what = "nested too deeply" if isinstance(error, RecursionError) else first_line(error)
    return InputError(what, where=where, expected=expected)


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null", dict: "object"}
    return names.get(type(value), "number")
