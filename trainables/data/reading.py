"""Reads rows from files, patterns, folders and hub ids, and chooses the split."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.files import read_file
from trainables.data.findings import Finding, listed
from trainables.data.folders import Splits, folder_of_files, matched, nearby
from trainables.data.formats import fields
from trainables.data.rows import ArrowRows, Part, Row, Rows, joined
from trainables.hub import client, local_cache, refusals, sources
from trainables.hub.refusals import first_line
from trainables.hub.sources import HubSource
from trainables.settings import DataSettings
from tuner.contract import InputError

__all__ = ["Row", "Rows", "read"]
_EXPECTED = (
    "a .jsonl, .json, .parquet, .csv, .tsv or .txt file, also with .gz or .zst, a pattern, a folder of such files or "
    "one written by `datasets`, or a hub id"
)
_VALIDATIONS = ("validation", "valid", "val", "dev", "eval")
"""Names of a split for validation, the likeliest first."""
_SPLIT = re.compile(r"(?P<name>[^\[\]+]+)(\[(?P<begin>-?\d+%?)?:(?P<end>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Sets:
    """The rows of a search as they are in their sources."""

    train: Rows
    """Training rows."""
    validation: Rows | None
    """Validation rows; None where they are to be split off."""
    findings: tuple[Finding, ...] = ()
    """What is to be told of how they were read."""


def read(source: str | Sequence[str], data: DataSettings, setting: str = "data.revision") -> Rows:
    """Reads the training rows of a file, a pattern, a folder or a hub dataset, or its validation rows. Raises
    InputError.

    setting: the name of the setting that has the dataset's revision, of training or validation rows.
    """
    for_training = setting == "data.revision"
    names = [source] if isinstance(source, str) else list(source)
    found = [_chosen(name, _open(name, data, setting), data, for_training) for name in names]
    return _usable(joined(", ".join(names), found), data)


def read_sets(data: DataSettings) -> Sets:
    """Reads the training rows, and the validation rows where the settings or the training rows' source have some.

    Raises InputError.
    """
    require_others(data)
    if not isinstance(data.train, str):
        if data.validation_split is not None and data.validation is None:
            raise InputError("several files have no splits", where="data.validation_split",
                             expected="one set with splits",
                             remedy="set data.validation to the validation rows")  # fmt: skip
        splits: Splits = {}
        train = read(data.train, data)
    else:
        splits = _open(data.train, data, "data.revision")
        train = _usable(_chosen(data.train, splits, data, for_training=True), data)
    others = [name for name in splits if name and name not in _split_names(data.split)]
    findings = [Finding("source", remark) for remark in train.remarks]
    validation: Rows | None
    if data.validation is not None:
        validation = read(data.validation, data, "data.validation_revision")
        findings += [Finding("source", remark) for remark in validation.remarks if remark not in train.remarks]
        used = []
    else:
        name = data.validation_split or next((name for name in _VALIDATIONS if name in others), None)
        validation = None if name is None else _own(str(data.train), splits, name, data)
        used = _split_names(name or "")
        if name is not None and data.validation_split is None:
            findings.append(Finding("split", f"the validation rows are the split {name!r} that the set has; "
                                    "data.validation_split names another", where=str(data.train)))  # fmt: skip
    if unused := [name for name in others if name not in used]:
        why = ", as data.validation names the validation rows" if data.validation is not None else ""
        findings.append(Finding("split", f"splits that are not used{why}: {listed(unused)}", where=str(data.train)))
    return Sets(train, validation, tuple(findings))


def _split_names(split: str) -> list[str]:
    """The splits that a setting names, without their slices."""
    return [name.split("[")[0].strip() for name in split.split("+")]


def _own(source: str, splits: Splits, split: str, data: DataSettings) -> Rows:
    """The validation rows that are in a split, or a slice, of the training rows' source."""
    if set(splits) == {""} and "[" not in split:
        raise InputError("the training rows have no splits", where="data.validation_split",
                         expected="a set with splits, or a slice: train[90%:]",
                         remedy="set data.split to train[:90%]; set data.validation_split to train[90%:]")  # fmt: skip
    return _usable(_of_split(source, splits, split, "data.validation_split"), data)


def require_others(data: DataSettings) -> None:
    """Raises InputError where training and validation rows are the same ones: the trial that memorizes them best would
    win."""
    if data.validation is None:
        same = data.validation_split is not None and data.validation_split.strip() == data.split.strip()
    else:
        both = [[str(Path(name).resolve()) for name in sources.names(given)] for given in (data.train, data.validation)]
        same = set(both[0]) == set(both[1]) and (data.validation_split or data.split) == data.split
        same = same and (data.validation_revision or data.revision) == data.revision
        file = all(Path(name).is_file() for name in both[0])
        remedy = "set data.validation to null" if file else "set data.validation_split to its split for validation"
    if same:
        split = "" if data.validation is not None else f" of the split {data.split!r}"
        raise InputError(f"the validation rows are the training rows{split}",
                         where="data.validation" if data.validation is not None else "data.validation_split",
                         expected="rows that are not learned: the trial that memorizes them best would win",
                         remedy=f"{remedy}; then {data.validation_fraction:.0%} of the rows are split off"
                         if data.validation is not None and file else
                         (remedy if data.validation is not None else "set data.validation_split to another"),
                         )  # fmt: skip


def _usable(rows: Rows, data: DataSettings) -> Rows:
    """The rows with the columns that the settings name by a path. Raises InputError where there are no rows."""
    if not len(rows):
        raise InputError("no rows: it is empty", where=rows.source, expected="at least one row")
    named = [name for name in data.columns.values() if name is not None]
    with contextlib.suppress(ValueError):  # the format's recognition says what is wrong with a template
        named += fields(data.prompt_template or "")
    return rows.with_paths(named)


def _chosen(source: str, found: Splits, data: DataSettings, for_training: bool) -> Rows:
    named = None if for_training else data.validation_split
    wanted, setting = (data.split, "data.split") if named is None else (named, "data.validation_split")
    if not for_training and named is None and len(found) == 1:
        wanted = next(iter(found)) or wanted
    return _of_split(source, found, wanted, setting)


def _of_split(source: str, found: Splits, wanted: str, setting: str) -> Rows:
    """The rows of a split, of a slice of it, or of several with `+` between them."""
    parts = []
    for one in wanted.split("+"):
        spec = _SPLIT.fullmatch(one.strip())
        if spec is None:
            raise InputError(f"{one!r} names no split", where=setting, expected="train, train[:50%] or train[100:200]")
        name = spec["name"].strip() if set(found) != {""} else ""
        if name not in found:
            raise InputError(f"no split {name!r}", where=source, expected=f"one of {', '.join(found)}",
                             remedy=f"set {setting} to {next(iter(found))}")  # fmt: skip
        rows = found[name]()
        if "[" in one:
            begin, end = (_bound(spec[key], len(rows), default) for key, default in (("begin", 0), ("end", len(rows))))
            rows = rows.select(range(begin, max(begin, end)))
        parts.append(rows)
    if len(parts) > 1:
        if any(rows.indices for rows in parts):
            raise InputError(
                f"{wanted!r} joins slices", where=setting, expected="one slice, or whole splits joined by +"
            )
        return joined(source, parts)
    return parts[0]


def _bound(text: str | None, total: int, default: int) -> int:
    """The row at which a slice begins or ends."""
    if text is None:
        return default
    number = int(text.rstrip("%"))
    place = round(total * number / 100) if text.endswith("%") else number
    return min(total, max(0, place + total if number < 0 else place))


def _open(source: str, data: DataSettings, setting: str) -> Splits:
    """A source with its splits. Raises InputError where there is none of the name."""
    path, key = Path(source), "data.train" if setting == "data.revision" else "data.validation"
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")):
            return _saved(path)
        return folder_of_files(path, data, key)
    if path.is_file():
        return _read(read_file(path, data))
    if glob.has_magic(source):
        return {"": lambda: matched(source, data, key)}
    if sources.is_dataset_id(source):
        named = next(named for named in sources.rows(data) if named.setting == setting and named.name == source)
        return _hub(named, data)
    raise InputError("no such file or folder", where=source, expected=_EXPECTED, remedy=nearby(path, key))


def _read(found: Mapping[str, Rows]) -> Splits:
    return {name: lambda rows=rows: rows for name, rows in found.items()}  # type: ignore[misc]


def _saved(path: Path) -> Splits:
    """A folder that `datasets` wrote."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder: pyarrow, json and datasets each raise their own
        raise InputError(f"cannot be loaded ({first_line(error)})", where=str(path)) from None
    if not isinstance(found, datasets.DatasetDict):
        return {"": lambda: _table(str(path), found, "")}
    return {name: lambda name=name: _table(str(path), found[name], name) for name in found}  # type: ignore[misc]


def _table(source: str, dataset: Any, split: str) -> Rows:
    rows = ArrowRows(dataset.with_format("arrow"), source)
    return Rows(source, rows, (Part(source, len(rows), split=split, is_arrow=True),))


def _hub(source: HubSource, data: DataSettings) -> Splits:
    """A dataset on the hub: the split of the training rows is read, and names the others."""
    first = re.split(r"[+\[]", data.split)[0]
    try:
        found = _load(source, data, first)
    except InputError:
        if data.validation_split is None or source.setting == "data.revision":
            raise
        first = re.split(r"[+\[]", data.validation_split)[0]
        found = _load(source, data, first)
    names = [first, *(name for name in (found.info.splits or {}) if name != first)]
    return {
        name: lambda name=name: _table(source.name, found if name == first else _load(source, data, name), name)  # type: ignore[misc]
        for name in names
    }  # fmt: skip


def _load(source: HubSource, data: DataSettings, split: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    why = ""
    try:
        found = local_cache.rows(source, data.name, split)
        if found is None:
            why = client.offline_if_unreachable()
            if why and source.is_pinned:  # offline, `datasets` would take whatever commit it read last
                raise refusals.out_of_reach(source, why)
            found = datasets.load_dataset(source.name, data.name, split=split, revision=source.revision)
    except InputError:
        raise
    except Exception as error:  # every loader on the hub raises its own
        if told := refusals.out_of_reach(source, why) if why else refusals.in_words(error, source):
            raise told from None
        raise InputError(f"the hub dataset cannot be loaded: {first_line(error)}", where=source.name,
                         expected=_EXPECTED) from None  # fmt: skip
    return found
