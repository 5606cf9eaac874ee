"""Several files as one set: patterns, and folders whose files say their split by name."""

from __future__ import annotations

import difflib
import glob
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from trainables.data import contents
from trainables.data.files import is_readable, read_file
from trainables.data.findings import listed
from trainables.data.rows import Rows, joined
from trainables.data.text_files import kind_of
from trainables.hub.sources import SUFFIXES
from trainables.settings import DataSettings
from tuner.contract import InputError

Splits = Mapping[str, Callable[[], Rows]]
"""How each split of a source is read; one without a name where it has none."""
_IN_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
             "test": ("test", "testing")}  # fmt: skip
"""Words in the names of files and folders that say their split, as `datasets` reads them."""
_MOST = 2000
"""Files that are looked at for a message."""
_LISTED = 8
"""Files that a remedy names one by one."""


def nearby(path: Path, key: str) -> str:
    """The remedy for a file that is not there: the one beside it that has nearly its name. key: the setting."""
    folder = path.parent
    if not folder.is_dir() or not path.suffix:
        return ""
    names = [file.name for file in islice(folder.iterdir(), _MOST) if file.is_dir() or is_readable(file)]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"set {key} to {folder / near[0]}" if near else ""


def matched(pattern: str, data: DataSettings, key: str) -> Rows:
    """The rows of the files that match a pattern, in the order of their names. Raises InputError where none does. key:
    the setting that has the pattern."""
    found = contents.matching(pattern)
    folder = _fixed(pattern)
    if not found:
        there = [p for p in sorted(islice(_files(folder), _MOST)) if is_readable(p)]
        more = f": the folder has {listed([p.relative_to(folder) for p in there], 4)}" if there else ""
        raise InputError(f"no file matches{more}", where=pattern, expected="a pattern of files with rows",
                         remedy=_proposed(folder, there, key))  # fmt: skip
    rows = _together(pattern, found, data)
    splits = {file: _split_in(file.relative_to(folder)) for file in found}
    if key == "data.train" and (others := [file.name for file, split in splits.items() if split not in ("", "train")]):
        told = f"{pattern}: among them are {listed(others, 4)}, whose rows are learned like the others"
        return replace(rows, remarks=(*rows.remarks, told))
    return rows


def _fixed(pattern: str) -> Path:
    """The folder that a pattern looks in, which is all of it before the first star."""
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else iter(())


def _ending(file: Path) -> str:
    """ ".jsonl", ".jsonl.gz"."""
    return "".join(kind_of(file))


def _proposed(folder: Path, files: Sequence[Path], key: str) -> str:
    """The setting that reads files which are there: those of the kind with the most bytes, and of them those for
    training, where their names say so."""
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[_ending(file)] += file.stat().st_size + 1
    if not sizes:
        return ""
    ending = sizes.most_common(1)[0][0]
    own = [file for file in files if _ending(file) == ending]
    wanted = key.removeprefix("data.")
    splits = {file: _split_in(file.relative_to(folder)) for file in own}
    named = [file for file in own if splits[file] == wanted]
    chosen = named or [file for file in own if not splits[file]] or own
    if len(chosen) == 1:
        return f"set {key} to {chosen[0]}"
    deep = "**/" if any(file.parent != folder for file in chosen) else ""
    for begins in ("", *(f"*{word}" for word in _IN_NAMES[wanted])):
        pattern = f"{folder}/{deep}{begins}*{ending}"
        if set(contents.matching(pattern)) == set(chosen):
            return f"set {key} to {pattern}"
    return f"set {key} to {[str(file) for file in chosen]}" if len(chosen) <= _LISTED else ""


def _together(source: str, files: Sequence[Path], data: DataSettings) -> Rows:
    """The rows of several files, one after the other."""
    found = []
    for file in files:
        splits = read_file(file, data)
        if set(splits) != {""}:
            raise InputError(f"has splits: {listed(splits)}", where=str(file), expected="files with rows and no splits")
        found.append(splits[""])
    remarks = (f"{source}: {len(files)} files are read",) if len(files) > 1 else ()
    rows = joined(source, found)
    return replace(rows, remarks=(*remarks, *rows.remarks))


def folder_of_files(path: Path, data: DataSettings, key: str) -> Splits:
    """The files with rows in a folder, by the split that their names say. Raises InputError. key: the setting."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_part(file.relative_to(path))]
    if not files:
        there = [file.name for file in sorted(path.iterdir())]
        more = f": it has {listed(there, 6)}" if there else ", it is empty"
        raise InputError(f"a folder without files of rows{more}", where=str(path),
                         expected=f"files that end in {', '.join(SUFFIXES)}, or a folder that `datasets` "
                         "wrote")  # fmt: skip
    kinds = sorted({kind_of(file)[0] for file in files})
    if len(kinds) > 1:
        raise InputError(f"a folder with files of several kinds: {', '.join(kinds)}", where=str(path),
                         expected="files of one kind", remedy=_proposed(path, files, key))  # fmt: skip
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_in(file.relative_to(path)), []).append(file)
    if set(by_split) == {""}:
        return {"": lambda: _together(str(path), files, data)}
    # As `datasets` has it: where some names say their split, the files whose names say none are no part of the set
    return {
        split: lambda split=split, own=own: _named(_together(str(path), own, data), split)  # type: ignore[misc]
        for split, own in by_split.items() if split
    }  # fmt: skip


_DESCRIBE = ("dataset_info", "readme", "license", "requirements", "config", "tokenizer", "special_tokens", "vocab",
             "generation_config", "merges", "adapter_config", "model.", "state.", "metadata.", "package.")  # fmt: skip
"""Beginnings of the names of files that describe a set or a model, and have no rows."""


def _is_part(file: Path) -> bool:
    """Whether a file in a folder has rows: not hidden, and not one that describes the set."""
    hidden = any(part.startswith((".", "_")) for part in file.parts)
    return is_readable(file) and not hidden and not file.name.lower().startswith(_DESCRIBE)


def _split_in(file: Path) -> str:
    """The split that the name of a file, or of a folder that it lies in, says; "" where it says none."""
    words = [set(re.split(r"[^a-z]+", part.lower())) for part in (file.name, *reversed(file.parent.parts))]
    for some in words:
        for split, names in _IN_NAMES.items():
            if some & set(names):
                return split
    return ""


def _named(rows: Rows, split: str) -> Rows:
    return rows if len(rows.parts) > 1 or rows.parts[0].lines else replace(
        rows, parts=tuple(replace(part, split=split) for part in rows.parts)
    )  # fmt: skip
