"""Reads the bytes of a file, compressed or not, and makes them UTF-8."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from os import stat_result
from pathlib import Path

from tuner.contract import InputError

_HEAD = 512
"""Bytes at the beginning of a file by which a stand-in is known."""
_BOMS = {
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def _zstd(data: bytes) -> bytes:
    import pyarrow

    with pyarrow.input_stream(pyarrow.py_buffer(data), compression="zstd") as stream:
        return bytes(stream.read())


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".zst": _zstd, ".bz2": bz2.decompress, ".xz": lzma.decompress,
}  # fmt: skip


def kind_of(path: Path) -> tuple[str, str]:
    """The ending that says what a file holds, in lower case, and that of its compression; "" where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _DECOMPRESS:
        return (suffixes[-2] if len(suffixes) > 1 else ""), suffixes[-1]
    return (suffixes[-1] if suffixes else ""), ""


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, decompressed. Raises InputError where it cannot be read, or changes meanwhile."""
    try:
        before = path.stat()
        data = path.read_bytes()
        require_unchanged(path, before)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from None
    compression = kind_of(path)[1]
    if not compression:
        return data
    try:
        return _DECOMPRESS[compression](data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"a broken archive ({told})", where=str(path), expected=f"a whole {compression} file",
                         remedy="copy or download it again") from None  # fmt: skip


def refuse_stand_ins(path: Path, kind: str) -> None:
    """Raises InputError for what stands where a file should be: a pointer of Git LFS, or the page of a failed download.

    kind: the ending that says what the file holds.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).lstrip().lower()
    except OSError:
        return  # the reader says why it cannot be read
    if head.startswith(b"version https://git-lfs"):
        raise InputError("is a pointer of Git LFS and not the file", where=str(path), expected="the file itself",
                         remedy="git lfs pull")  # fmt: skip
    if kind != ".txt" and head.startswith((b"<!doctype html", b"<html")):
        raise InputError("is an HTML page and not rows: a download that failed leaves one", where=str(path),
                         expected=f"a {kind} file", remedy="download it again, and look at what comes")  # fmt: skip


def require_unchanged(path: Path, before: stat_result) -> None:
    """Raises InputError where a file has grown or was written since `before`: nobody could say which rows were read."""
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise InputError(f"the file changes while it is read: {before.st_size:,} bytes, then {now.st_size:,}",
                         where=str(path), expected="a file that nobody writes to",
                         remedy="wait until it is complete, or copy it and name the copy")  # fmt: skip


def read_utf8(path: Path, encoding: str) -> bytes:
    """The text of a file as UTF-8, without a byte order mark. Raises InputError."""
    data = read_bytes(path)
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        try:
            return data.decode(encoding).removeprefix("\ufeff").encode()
        except UnicodeDecodeError as error:
            raise InputError(f"not {encoding} text ({error.reason} at byte {error.start:,})", where=str(path),
                             expected=f"text in {encoding}, as data.encoding says") from None  # fmt: skip
    found = next((name for mark, name in _BOMS.items() if data.startswith(mark)), "")
    if found == "utf-16":
        raise InputError("not UTF-8 text: it has the byte order mark of UTF-16", where=str(path),
                         expected="text in UTF-8", remedy="set data.encoding to utf-16")  # fmt: skip
    if found:
        raise InputError(f"a {found} archive", where=str(path), expected="text, as its name says",
                         remedy="unpack it" if found == "zip" else
                         f"rename it to {path.name}{'.gz' if found == 'gzip' else '.zst'}")  # fmt: skip
    return data.removeprefix(b"\xef\xbb\xbf")


def not_utf8(error: UnicodeDecodeError, text: bytes, begin: int, where: str) -> InputError:
    """The error for text that is not UTF-8. begin: the byte of the file at which the text begins that could not be
    read."""
    bad = text[begin + error.start]
    seen = bytes([bad]).decode("cp1252", "replace")
    return InputError(f"not UTF-8 text ({error.reason} at byte {begin + error.start:,}: 0x{bad:02x}, which is {seen!r} "
                      "in Latin-1)", where=where, expected="text in UTF-8",
                      remedy="set data.encoding to latin-1 if its characters are right then")  # fmt: skip
