"""The pictures that rows name, for a search that is sent to another machine with its rows. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePath

from trainables.data import formats, image_parts, reading
from trainables.data.messages import BadRow
from trainables.data.rows import Rows
from trainables.data.shaping import Shaper
from trainables.images.reading import ImageReader, path_in
from trainables.settings import DataSettings
from tuner.contract import InputError

_SETS = {"data.train": "data.revision", "data.validation": "data.validation_revision"}
"""By setting that names rows: the setting with their revision."""
_ELSEWHERE = "paths within the folder of the rows, or data.image_folder set to a folder that the cluster has"


def pictures(data: DataSettings, files: Mapping[str, Collection[Path]]) -> dict[Path, list[str]]:
    """By file of rows: the paths of the pictures that it names, relative to its folder. A folder of rows has them
    within it.

    files: those that are sent, by setting. Raises InputError for a picture that a search refuses, or that another
    machine would look for elsewhere. Rows that cannot be read are left to the search.
    """
    if data.image_folder is not None:
        return {}
    named = {file: revision for name, revision in _SETS.items() for file in files.get(name, ()) if file.is_file()}
    return {file: found for file, revision in named.items() if (found := _named_in(file, data, revision))}


def _named_in(file: Path, data: DataSettings, revision: str) -> list[str]:
    try:
        rows = reading.read(str(file), data, revision)
        fmt = formats.detect(rows, data)
    except InputError:
        return []
    if not fmt.images:
        return []
    shaper, reader, found = Shaper(fmt, data), ImageReader(data), dict[str, None]()
    for index, row in enumerate(rows.rows):
        try:
            sources = shaper.shape(row, rows.is_arrow(index)).get(image_parts.IMAGES, [])
        except BadRow:
            continue
        for name in filter(None, map(path_in, sources)):
            if name not in found and _is_there(name, rows, index, reader, data):
                found[name] = None
    return list(found)


def _is_there(name: str, rows: Rows, index: int, reader: ImageReader, data: DataSettings) -> bool:
    """Whether a picture is to be sent; not where its row will be left out. Raises InputError."""
    if PurePath(name).is_absolute():
        raise InputError(f"the image {name} is an absolute path, and would be looked for on the cluster",
                         where=rows.where(index), expected=_ELSEWHERE)  # fmt: skip
    try:
        reader.place(name, rows.source_of(index))
    except BadRow as bad:
        if data.on_bad_row == "drop":
            return False
        raise InputError(
            bad.what, where=rows.where(index), expected=bad.expected,
            remedy="put it there, or set data.image_folder to the folder that has it",
        ) from None  # fmt: skip
    return True
