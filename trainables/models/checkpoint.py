"""Finds the safetensors files of a base, and reads their headers. Torch-free."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.contract import InputError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000
"""In bytes: safetensors' own limit."""
NO_GGUF = "take the model that the GGUF file was made from: GGUF is for inference"
_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header describes it."""

    dtype: str
    """By safetensors' name ("BF16")."""
    shape: tuple[int, ...]
    """Its size in each dimension."""
    begin: int
    """The offset of its first byte in the file."""
    end: int
    """The offset behind its last byte."""


def files(folder: Path) -> list[Path]:
    """The files that transformers loads from `folder`: one, or the shards that the index names.

    Raises InputError where there is none, or where a shard is missing.
    """
    named = config(folder).get("transformers_weights")
    single = folder / (named if isinstance(named, str) and named.endswith(".safetensors") else SINGLE)
    index = folder / (named if isinstance(named, str) and named.endswith(".json") else INDEX)
    if single.is_file():
        return [single]
    if not index.is_file():
        raise _no_weights(folder)
    weights = _read_json(index).get("weight_map")
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights.values()):
        raise InputError("no weight_map in it", where=str(index), expected="a mapping of tensors to files",
                         remedy=_AGAIN)  # fmt: skip
    shards = sorted(set(weights.values()))
    lost = [name for name in shards if not (folder / name).is_file()]
    if lost:
        raise InputError(
            f"{len(lost)} of its {len(shards)} files are missing: {listed(lost)}",
            where=str(folder),
            expected=f"every file that {index.name} names",
            remedy="copy or download the missing files",
        )
    return [folder / name for name in shards]


def config(folder: Path) -> dict[str, Any]:
    """The content of the folder's config.json; empty where it has none. Raises InputError."""
    return _read_json(folder / "config.json")


def header(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises InputError where it cannot be read, is cut off or damaged."""
    expected = "a file in the safetensors format"
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = stream.read(length) if 0 < length <= min(size, _LONGEST_HEADER) else b""
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(file), expected=expected) from error
    if size == 0:
        raise InputError("is empty", where=str(file), expected=expected, remedy=_AGAIN)
    if start == b"version ":  # the first word of a Git LFS pointer
        raise InputError("is a pointer of Git LFS and not the weights", where=str(file), expected=expected,
                         remedy="git lfs pull")  # fmt: skip
    try:
        tensors = {name: _tensor(said, 8 + length) for name, said in json.loads(text).items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        cut = 0 < length <= _LONGEST_HEADER and len(text) < length
        what = "is cut off: the header is not all there" if cut else "is damaged, or no safetensors file"
        raise InputError(what, where=str(file), expected=expected, remedy=_AGAIN) from None
    complete = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if size != complete:
        what = f"is cut off: it has {size:,} bytes" if size < complete else f"is damaged: it has {size:,} bytes"
        raise InputError(what, where=str(file), expected=f"{complete:,} bytes, by its header", remedy=_AGAIN)
    return tensors


def listed(names: list[str], most: int = 5) -> str:
    """The first `most` names, and the number of others, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _tensor(said: Mapping[str, Any], data: int) -> Tensor:
    """A tensor of a header. data: the offset of the first tensor in the file. Raises ValueError and KeyError."""
    begin, end = said["data_offsets"]
    if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin <= end):
        raise ValueError("offsets")
    return Tensor(str(said["dtype"]), tuple(int(size) for size in said["shape"]), data + begin, data + end)


def _no_weights(folder: Path) -> InputError:
    found = sorted(p.name for p in folder.glob("*") if p.suffix in (".safetensors", ".bin", ".gguf", ".pt", ".pth"))
    remedy = "save it again with transformers' save_pretrained"
    if any(name.endswith(".gguf") for name in found):
        remedy = NO_GGUF
    return InputError(f"no safetensors weights ({listed(found) or 'no weights'})", where=str(folder),
                      expected=f"{SINGLE}, or {INDEX} and the files it names", remedy=remedy)  # fmt: skip


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON ({error})", where=str(file), remedy=_AGAIN) from None
    return found if isinstance(found, dict) else {}
