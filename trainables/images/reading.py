"""Reads an image from a path, bytes or a URL, as RGB of a bounded size. Names what is broken."""

from __future__ import annotations

import base64
import binascii
import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from trainables.data.findings import shown
from trainables.data.messages import BadRow, is_null
from trainables.settings import DataSettings

_EXPECTED = "a path, bytes, base64 text, or a dict of bytes and path as `datasets` writes it"
_SMALLEST = 4
"""Pixels of the shortest side: in an array with a side of 1 or 3, transformers may take that for the colours."""
_KEPT = ("PNG", "JPEG", "WEBP")
"""Formats whose bytes are kept as they are, where nothing of the image changes."""
_DATA_URI = re.compile(r"data:[\w/+.;=-]*;base64,", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*", re.ASCII)
_LONGEST_PATH = 512
"""Characters from which on text that may be base64 is base64, and no path."""
_FETCH_SECONDS, _FETCH_BYTES = 20, 64 << 20


class ImageReader:
    """Reads images as the settings say, and counts what it changes of them."""

    def __init__(self, data: DataSettings) -> None:
        self._data = data
        self.changed: Counter[str] = Counter()
        """By what was done: how many images it was done to."""

    def read(self, source: Any, rows: str) -> bytes:
        """An image file with one RGB frame of at most `max_pixels` pixels.

        source: what a row says of it. rows: the file, folder or hub id that the row comes from. Raises BadRow.
        """
        content, name = self._content(source, rows)
        try:
            return self._converted(content, name)
        except BadRow:
            raise
        except Exception as error:  # Pillow raises SyntaxError, struct.error and others for broken files
            told = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            told = re.sub(r" ?<_io\.BytesIO object at 0x[0-9a-f]+>", "", told)
            what = f"the image {name} cannot be read ({told})"
            raise BadRow("malformed", what, "an image that Pillow reads") from None

    def _content(self, source: Any, rows: str) -> tuple[bytes, str]:
        """The bytes of an image file, and what it is called in messages."""
        if (name := path_in(source)) is not None:
            return self._file(name, rows), name
        if isinstance(source, bytes | bytearray | memoryview):
            return bytes(source), "in bytes"
        if isinstance(source, Mapping):
            return self._of_dict(source, rows)
        if not isinstance(source, str) or not source.strip():
            raise BadRow("malformed", f"an image that is {shown(source)}", _EXPECTED)
        if found := _DATA_URI.match(source):
            return _decoded(source[found.end() :]), "in base64"
        if _URL.match(source):
            return self._fetched(source), source
        return _decoded(source), "in base64"

    def _of_dict(self, source: Mapping[str, Any], rows: str) -> tuple[bytes, str]:
        for key in ("bytes", "base64"):
            value: Any = source.get(key)
            if is_null(value):
                continue
            name = str(source.get("path") or "in bytes")
            return (_decoded(value) if isinstance(value, str) else bytes(value)), name
        for key in ("path", "url", "image"):
            if not is_null(source.get(key)):
                return self._content(source[key], rows)
        raise BadRow("malformed", f"an image that is {shown(dict(source))}", _EXPECTED)

    def place(self, name: str, rows: str) -> Path:
        """The file of an image that a row names by a path. Raises BadRow where it is none, or lies elsewhere."""
        given = self._data.image_folder
        root = Path(given) if given is not None else Path(rows) if Path(rows).is_dir() else Path(rows).parent
        if given is None and not Path(rows).exists():
            raise BadRow("malformed", f"the image {name} is a path, and the rows come from no folder on this machine",
                         "images in the rows, or data.image_folder")  # fmt: skip
        place = (root / name).resolve()
        if not place.is_relative_to(root.resolve()):
            raise BadRow("malformed", f"the image {name} lies outside of {root}",
                         "a path within the folder of the rows, or data.image_folder set to one that holds the "
                         "images")  # fmt: skip
        if not place.is_file():  # a pipe would block
            raise BadRow("malformed", f"the image {name} is not in {root}", "a file")
        return place

    def _file(self, name: str, rows: str) -> bytes:
        try:
            return self.place(name, rows).read_bytes()
        except OSError as error:
            raise BadRow("malformed", f"the image {name} cannot be read ({error.strerror})", "a file") from None

    def _fetched(self, url: str) -> bytes:
        if not url.lower().startswith(("http://", "https://")):
            raise BadRow("malformed", f"an image by {url.split(':')[0]}", _EXPECTED)
        if not self._data.image_urls:
            raise BadRow("malformed", "an image that is a URL, which is not fetched",
                         "images beside the rows, or data.image_urls: true")  # fmt: skip
        import urllib.request

        try:
            with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:  # noqa: S310  http and https alone
                content: bytes = answer.read(_FETCH_BYTES + 1)
        except (OSError, ValueError) as error:
            raise BadRow("malformed", f"the image {url} cannot be fetched ({error})", "a URL that answers") from None
        if len(content) > _FETCH_BYTES:
            raise BadRow("malformed", f"the image {url} has more than {_FETCH_BYTES >> 20} MiB", "a smaller image")
        return content

    def _converted(self, content: bytes, name: str) -> bytes:
        from PIL import Image, ImageOps

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` says it
            opened = Image.open(BytesIO(content))
        with opened as found:
            width, height = found.size
            self._check_size(width, height, name, Image.MAX_IMAGE_PIXELS or math.inf)
            done = []
            if getattr(found, "is_animated", False):
                found.seek(0)
                done.append("have several frames: the first is learned")
            found.load()
            image: Image.Image = found
            if found.getexif().get(0x0112, 1) != 1:  # as `datasets` turns them
                image = ImageOps.exif_transpose(found)
                done.append("are turned as their EXIF data says")
            if image.mode != "RGB":
                if image.mode[0] in "IF":
                    raise BadRow("malformed", f"the image {name} has pixels of mode {image.mode}, beyond 0 to 255",
                                 "8 bits a colour")  # fmt: skip
                done.append(f"are converted from {image.mode} to RGB")
                image = image.convert("RGB")
            most = self._data.max_pixels
            if width * height > most:
                scale = math.sqrt(most / (width * height))
                size = (math.floor(image.width * scale), math.floor(image.height * scale))
                if min(size) < _SMALLEST:
                    raise BadRow("malformed", f"the image {name} of {width:,} by {height:,} pixels is a line",
                                 f"sides of {_SMALLEST} pixels or more within data.max_pixels={most}")  # fmt: skip
                image = image.resize(size, Image.Resampling.BICUBIC)
                done.append(f"are made smaller, to data.max_pixels={most}")
            self.changed.update(done)
            if not done and found.format in _KEPT:
                return content
            written = BytesIO()
            image.save(written, "PNG", compress_level=1)
            return written.getvalue()

    @staticmethod
    def _check_size(width: int, height: int, name: str, most: float) -> None:
        if min(width, height) < _SMALLEST:
            raise BadRow("malformed", f"the image {name} has {width} by {height} pixels",
                         f"sides of {_SMALLEST} pixels or more")  # fmt: skip
        if width * height > most:
            raise BadRow("malformed", f"the image {name} has {width:,} by {height:,} pixels",
                         f"at most {most:,} pixels, beyond which Pillow takes a file for an attack")  # fmt: skip


def path_in(source: Any) -> str | None:
    """The path that an image is read from; None where it is read from something else. source: what a row says of it."""
    if isinstance(source, Mapping):
        if not all(is_null(source.get(key)) for key in ("bytes", "base64")):
            return None
        return path_in(next((source[key] for key in ("path", "url", "image") if not is_null(source.get(key))), None))
    if not isinstance(source, str) or not source.strip() or _DATA_URI.match(source) or _URL.match(source):
        return None
    return None if len(source) > _LONGEST_PATH and _BASE64.fullmatch(source) else source


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRow("malformed", f"an image in malformed base64 ({error})", _EXPECTED) from None
