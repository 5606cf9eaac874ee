"""The images of a search in one file, each once however many rows have it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

FILE = "images.bin"
"""Its name in the folder of a preparation."""

Place = tuple[int, int, str]
"""Where an image is: the byte that it begins at, its bytes, and 16 hex digits of its SHA-256."""


class BlobWriter:
    """Writes images one behind the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("wb")
        self._places: dict[bytes, Place] = {}
        self._end = 0

    def add(self, content: bytes) -> Place:
        """Writes an image, unless it is there already. Raises OSError."""
        digest = hashlib.sha256(content).digest()
        if digest not in self._places:
            self._stream.write(content)
            self._places[digest] = (self._end, len(content), digest.hex()[:16])
            self._end += len(content)
        return self._places[digest]

    def close(self) -> None:
        """Ends the file. May be called twice."""
        self._stream.close()


class BlobReader:
    """Reads images of a file that a BlobWriter has written. Processes and threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle, self._owner = path, -1, -1

    def read(self, begin: int, size: int) -> bytes:
        """The image that begins at byte `begin`. Raises OSError."""
        if self._owner != os.getpid():  # a copy in another process opens the file itself
            self._handle, self._owner = os.open(self._path, os.O_RDONLY), os.getpid()
        return os.pread(self._handle, size, begin)

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]
