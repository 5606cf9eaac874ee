"""Images that rows name in every form, and those that are broken. Without torch."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.trainables.images.image_bases import picture
from trainables.data.messages import BadRow
from trainables.images.blob import BlobReader, BlobWriter
from trainables.images.reading import ImageReader
from trainables.settings import DataSettings


def reader(**data: Any) -> ImageReader:
    return ImageReader(DataSettings(train="rows.jsonl", **data))


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def opened(content: bytes) -> Any:
    image = Image.open(BytesIO(content))
    image.load()
    return image


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """The path of a file with rows, beside a picture."""
    (tmp_path / "data" / "pictures").mkdir(parents=True)
    picture().save(tmp_path / "data" / "pictures" / "a.png")
    picture().save(tmp_path / "outside.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "outside.png")
    place = tmp_path / "data" / "rows.jsonl"
    place.touch()
    return str(place)


def test_every_form_gives_the_same_image(rows: str) -> None:
    path = Path(rows).parent / "pictures" / "a.png"
    content = path.read_bytes()
    words = base64.b64encode(content).decode()
    forms: list[Any] = [
        "pictures/a.png", "./pictures/../pictures/a.png", str(path), content, {"path": "pictures/a.png"},
        {"bytes": content, "path": "elsewhere/b.png"}, {"bytes": None, "path": "pictures/a.png"}, {"bytes": words},
        {"base64": words}, f"data:image/png;base64,{words}",
    ]  # fmt: skip
    big = encoded(Image.effect_noise((40, 40), 90).convert("RGB"))
    assert reader().read(base64.b64encode(big).decode(), rows) == big, "long base64 is no path"
    for form in forms:
        assert reader().read(form, rows) == content, form
    other = str(Path(rows).parent.parent)
    assert reader(image_folder=other).read("outside.png", rows) == content


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("pictures/b.png", "the image pictures/b.png is not in "),
        ("pictures", "the image pictures is not in "),
        ("../outside.png", "the image ../outside.png lies outside of "),
        ("/etc/hostname", "the image /etc/hostname lies outside of "),
        ("link.png", "the image link.png lies outside of "),
        ("rows.jsonl", "the image rows.jsonl cannot be read (cannot identify image file)"),
        ("https://example.com/a.png", "an image that is a URL, which is not fetched"),
        ("file:///etc/hostname", "an image by file"),
        (7, "an image that is 7"),
        ("", "an image that is ''"),
        ({"height": 3}, "an image that is {'height': 3}"),
        ({"base64": "%%%"}, "an image in malformed base64"),
        (encoded(picture((40, 40)))[:90], "the image in bytes cannot be read ("),
        (encoded(picture((40, 40)), "JPEG")[:-60], "the image in bytes cannot be read (image file is truncated"),
        (encoded(Image.new("RGB", (1, 1))), "the image in bytes has 1 by 1 pixels"),
        (encoded(Image.new("RGB", (300, 3))), "the image in bytes has 300 by 3 pixels"),
        (encoded(Image.new("1", (20_000, 20_000))), "the image in bytes cannot be read (Image size (400000000 pixels)"),
        (encoded(Image.new("1", (20_000, 5_000))), "the image in bytes has 20,000 by 5,000 pixels"),
        (encoded(Image.new("L", (20_000, 10))), "the image in bytes of 20,000 by 10 pixels is a line"),
        (encoded(Image.new("I;16", (20, 20))), "the image in bytes has pixels of mode I;16"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(rows: str, source: Any, what: str) -> None:
    with pytest.raises(BadRow) as caught:
        reader(max_pixels=16_384).read(source, rows)
    assert caught.value.what.startswith(what) and caught.value.kind == "malformed" and caught.value.expected


def test_rows_from_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadRow, match="the rows come from no folder on this machine"):
        reader().read("a.png", "org/dataset")


def animation() -> bytes:
    frames = [picture(colour=(200, 0, 0)), picture(colour=(0, 200, 0))]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture((30, 20)), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("content", "size", "told"),
    [
        (encoded(picture((24, 24)), "JPEG"), (24, 24), None),
        (encoded(picture((24, 24)).convert("CMYK"), "JPEG"), (24, 24), "are converted from CMYK to RGB"),
        (encoded(picture((24, 24)).convert("P")), (24, 24), "are converted from P to RGB"),
        (encoded(picture((24, 24)).convert("RGBA")), (24, 24), "are converted from RGBA to RGB"),
        (encoded(picture((24, 24)).convert("L")), (24, 24), "are converted from L to RGB"),
        (animation(), (24, 24), "have several frames: the first is learned"),
        (turned(), (20, 30), "are turned as their EXIF data says"),
        (encoded(picture((256, 64))), (128, 32), "are made smaller, to data.max_pixels=4096"),
        (encoded(picture((24, 24)), "BMP"), (24, 24), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_changed(content: bytes, size: tuple[int, int], told: str | None) -> None:
    reads = reader(max_pixels=4096)
    read = opened(reads.read(content, "rows.jsonl"))
    assert (read.size, read.mode) == (size, "RGB") and getattr(read, "n_frames", 1) == 1
    assert told is None or reads.changed[told] == 1
    assert told is not None or not reads.changed
    if told is None:
        assert read.tobytes() == opened(content).tobytes()


def test_the_first_frame_is_the_one_that_is_learned() -> None:
    read = opened(reader().read(animation(), "rows.jsonl"))
    assert read.getpixel((12, 12))[0] > 150 > 50 > read.getpixel((12, 12))[1]


@contextmanager
def served(content: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            if self.path == "/a.png":
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_urls_are_fetched_where_the_settings_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    content = encoded(picture())
    with served(content) as place:
        allowed = reader(image_urls=True)
        assert allowed.read(f"{place}/a.png", "rows.jsonl") == content
        with pytest.raises(BadRow, match=r"b\.png cannot be fetched \(HTTP Error 404"):
            allowed.read(f"{place}/b.png", "rows.jsonl")
        with pytest.raises(BadRow, match="which is not fetched"):
            reader().read(f"{place}/a.png", "rows.jsonl")
    with pytest.raises(BadRow, match="cannot be fetched"):
        allowed.read(f"{place}/a.png", "rows.jsonl")
    with pytest.raises(BadRow, match="an image by ftp"):
        allowed.read("ftp://127.0.0.1/a.png", "rows.jsonl")


def test_an_image_is_kept_once(tmp_path: Path) -> None:
    writer = BlobWriter(tmp_path / "images.bin")
    places = [writer.add(content) for content in (b"one", b"three", b"one")]
    assert places[0] == places[2] and [place[:2] for place in places[:2]] == [(0, 3), (3, 5)]
    writer.close()
    reads = BlobReader(tmp_path / "images.bin")
    assert [reads.read(*place[:2]) for place in places] == [b"one", b"three", b"one"]
