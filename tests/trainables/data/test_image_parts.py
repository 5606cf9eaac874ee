"""The places of images in a row, and what each is read from."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.data import formats
from trainables.data.messages import BadRow
from trainables.data.rows import Rows
from trainables.data.shaping import Shaper
from trainables.settings import DataSettings

PLACE = {"type": "image"}
BYTES = {"bytes": b"\x89PNG", "path": "a.png"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def asked(*content: Any) -> list[dict[str, Any]]:
    said = content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)
    return [{"role": "user", "content": said}, {"role": "assistant", "content": "red"}]


def shape(row: dict[str, Any], **data: Any) -> dict[str, Any]:
    settings = DataSettings(train="x", **data)
    fmt = formats.detect(Rows("rows.jsonl", [row]), settings)
    assert fmt.images
    return Shaper(fmt, settings).shape(row)


@pytest.mark.parametrize(
    ("row", "content", "sources"),
    [
        ({"messages": asked("which?"), "images": ["1", "2"]}, [PLACE, PLACE, text("which?")], ["1", "2"]),
        ({"messages": asked("which?"), "image": "a.png"}, [PLACE, text("which?")], ["a.png"]),
        ({"messages": asked(PLACE, text("which?")), "images": [BYTES]}, [PLACE, text("which?")], [BYTES]),
        ({"messages": asked(text("a"), PLACE, text("b"), PLACE), "images": ["1", "2"]},
         [text("a"), PLACE, text("b"), PLACE], ["1", "2"]),
        ({"messages": asked({"type": "image", "path": "a.png"}, text("b"))}, [PLACE, text("b")], [{"path": "a.png"}]),
        ({"messages": asked({"type": "image", "image": "a.png"}, PLACE), "images": ["b.png"]}, [PLACE, PLACE],
         ["a.png", "b.png"]),
        ({"messages": asked({"type": "image", **BYTES})}, [PLACE], [BYTES]),
        ({"messages": asked({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})}, [PLACE],
         ["data:image/png;base64,AAAA"]),
        ({"messages": asked({"type": "text", "text": "b", "image": None}, {"type": "image", "text": None}),
          "images": ["a"]}, [text("b"), PLACE], ["a"]),  # as Arrow fills them
        ({"messages": asked("<image>\nwhich of <image>?"), "images": ["a", "b"]},
         [PLACE, text("which of "), PLACE, text("?")], ["a", "b"]),
    ],
)  # fmt: skip
def test_places(row: dict[str, Any], content: Any, sources: list[Any]) -> None:
    shaped = shape(row)
    assert shaped["messages"][0]["content"] == content and shaped["images"] == sources
    assert shaped["messages"][1]["content"] == "red"


def test_a_prompt_and_its_completion() -> None:
    row = {"question": "which?", "answer": "red", "picture": "a.png"}
    columns = {"prompt": "question", "completion": "answer", "images": "picture"}
    shaped = shape(row, columns=columns, as_chat=True)
    assert shaped["prompt"] == [{"role": "user", "content": [PLACE, text("which?")]}]
    assert (shaped["completion"], shaped["images"]) == ([{"role": "assistant", "content": "red"}], ["a.png"])
    assert shape(row, columns=columns) == {"prompt": "which?", "completion": "red", "images": ["a.png"]}


def test_a_row_of_text_among_them() -> None:
    rows = [{"messages": asked("why?")}, {"messages": asked("which?"), "images": ["a"]}]
    fmt = formats.detect(Rows("rows.jsonl", rows), settings := DataSettings(train="x"))
    assert fmt.images and Shaper(fmt, settings).shape(rows[0]) == {"messages": asked("why?"), "images": []}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": asked(PLACE, text("b")), "images": ["a", "b"]}, "2 images and 1 place for images"),
        ({"messages": asked(PLACE, PLACE), "images": ["a"]}, "1 image and 2 places for images"),
        ({"messages": asked(PLACE, text("b"))}, "0 images and 1 place for images"),
        ({"messages": asked("<image> or <image>"), "images": ["a"]}, "1 image and 2 places for images"),
        ({"messages": asked(text("a"), {"type": "audio"}), "images": ["a"]}, "a part of type 'audio'"),
        ({"messages": asked({"type": "image", "path": "a", "url": "b"})}, "a part with an image twice"),
        ({"prompt": asked("a")[:1], "completion": [{"role": "assistant", "content": [PLACE]}], "images": ["a"]},
         "an image in the completion"),
        ({"messages": [*asked("a"), {"role": "assistant", "content": "b", "weight": 0}], "images": ["a"]},
         "turns with weight 0 beside images"),
    ],
)  # fmt: skip
def test_what_is_refused(row: dict[str, Any], what: str) -> None:
    with pytest.raises(BadRow) as caught:
        shape(row)
    assert what in caught.value.what


def test_a_column_that_is_not_read() -> None:
    row = {"messages": asked("which?"), "images": ["a.png"]}
    settings = DataSettings(train="x", columns={"images": None})
    fmt = formats.detect(Rows("rows.jsonl", [row]), settings)
    assert not fmt.images and Shaper(fmt, settings).shape(row) == {"messages": asked("which?")}


def test_settings_for_images_leave_the_fingerprints_of_text_as_they_were() -> None:
    plain = DataSettings(train="x").said()
    assert not {"max_pixels", "image_folder", "image_urls", "max_bad_images"} & plain.keys()
    assert DataSettings(train="x", max_pixels=2048).said() == {**plain, "max_pixels": 2048}
