"""Fingerprints a checkpoint that may have 100 GB: all bytes of small files, and samples of large ones.

A sample has the header, the file's size, all of every tensor of up to 64 KiB (norms, biases), and of each larger tensor
the first and last 16 KiB and two blocks between, whose places follow from its name. Training changes all of a tensor,
and so does merging an adapter: both change the fingerprint. A few bytes changed by hand in the middle of a tensor do
not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

from trainables.data import contents
from trainables.models import checkpoint

_SMALL = 256 << 20
"""Bytes of a file up to which all of it is read: 0.2 s."""
_BLOCK = 16 << 10
"""Bytes of a block."""
_BLOCKS = 4
"""Blocks of a tensor that are read; a tensor that has no more is read completely."""
_BATCH = 256
"""Blocks that one thread reads at a time."""
_READERS = 8
"""Threads that read: on a network file system each read waits for the server."""


def of_weights(file: Path, *, every_byte: bool = False) -> str:
    """The fingerprint of a safetensors file. every_byte: of all its bytes, however large. Raises InputError."""
    stat = file.stat()
    return _known(file, every_byte, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@cache
def _known(file: Path, every_byte: bool, size: int, *_stat: int) -> str:
    """The same, computed once a process as long as the file's size, times and inode stay the same."""
    if every_byte or size <= _SMALL:
        return contents.of_file(file)
    tensors = checkpoint.header(file)
    first = min((tensor.begin for tensor in tensors.values()), default=size)
    spans = [(0, first), *(span for name in sorted(tensors) for span in _spans(name, tensors[name]))]
    digest = hashlib.sha256(f"sampled {size}".encode())
    handle = os.open(file, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(_READERS) as readers:
            batches = [spans[at : at + _BATCH] for at in range(0, len(spans), _BATCH)]
            for part in readers.map(partial(_digest, handle), batches):
                digest.update(part)
    finally:
        os.close(handle)
    return digest.hexdigest()[: contents.DIGITS]


def _spans(name: str, tensor: checkpoint.Tensor) -> Iterator[tuple[int, int]]:
    """The blocks of a tensor that are sampled: offset in the file and size, in bytes."""
    size = tensor.end - tensor.begin
    if size <= _BLOCK * _BLOCKS:
        yield tensor.begin, size
        return
    drawn = hashlib.sha256(f"{name} {size}".encode()).digest()
    last = size - _BLOCK
    between = [int.from_bytes(drawn[8 * i : 8 * i + 8]) % last for i in range(_BLOCKS - 2)]
    for offset in (0, *between, last):
        yield tensor.begin + offset, _BLOCK


def _digest(handle: int, spans: list[tuple[int, int]]) -> bytes:
    digest = hashlib.sha256()
    for offset, size in spans:
        digest.update(os.pread(handle, size, offset))
    return digest.digest()
