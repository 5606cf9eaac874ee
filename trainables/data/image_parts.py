"""Images of a row: the parts of its messages that stand for one, and what each image is read from.

A place for an image is a part `{"type": "image"}` of a message's content, as TRL has it. What it is read from stays as
the row has it: a path, bytes, a dict of both, or a URL (`trainables.images.reading` reads it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainables.data.findings import shown
from trainables.data.messages import BadRow, is_null, joined

IMAGES = "images"
"""Key of a shaped row: what each of its images is read from, in the order of their places."""
COLUMNS = ("images", "image")
"""Columns beside messages, or prompt and completion, that hold a row's images."""
_TYPES = ("image", "image_url")
_SOURCES = ("image", "image_url", "path", "url", "base64", "bytes")
"""Keys of a part that say what its image is read from."""
_MARK = "<image>"
"""What stands for an image in the texts of LLaVA's files."""
_PLACE = {"type": "image"}
_TURNS = ("messages", "prompt", "completion")

Turns = list[dict[str, Any]]


def are_in(turns: Any) -> bool:
    """Whether a list of turns has a part that stands for an image."""
    if not isinstance(turns, list):
        return False
    contents = (turn.get("content", turn.get("value")) for turn in turns if isinstance(turn, dict))
    return any(_is_image(part) for content in contents if isinstance(content, list) for part in content)


def kept(content: list[Any], expected: str) -> Any:
    """The content of a message in parts: texts, and places for images with what they are read from. Content without an
    image is its text. Raises BadRow for any other part."""
    if not any(_is_image(part) for part in content):
        return joined(content, expected)
    return [_place(part) if _is_image(part) else {"type": "text", "text": joined([part], expected)} for part in content]


def given(value: Any) -> list[Any]:
    """What a column of images holds, one by one."""
    if is_null(value) or value == "":
        return []
    if isinstance(value, list | tuple):
        return [one for one in value if not is_null(one)]
    return [value]


def in_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """A shaped row whose contents are all lists of parts, as TRL's collator hands them to the chat template."""
    return {key: [_in_parts(turn) for turn in value] if key in _TURNS and isinstance(value, list) else value
            for key, value in row.items() if key != IMAGES}  # fmt: skip


def settle(turns: Turns, column: Sequence[Any], answers: Turns | None = None) -> tuple[Turns, list[Any]]:
    """The turns with a place for every image, and what each image is read from. Raises BadRow where an image has no
    place, or a place no image.

    column: the images that stand beside the turns, for places that name none. answers: turns that may have no images.
    """
    waiting, sources = list(column), []
    if any(True for turn in answers or () for _ in _places(turn)):
        raise BadRow(
            "malformed", "an image in the completion", "images in the prompt, which TRL's collator reads alone"
        )
    if waiting and not any(True for turn in turns for _ in _places(turn)):
        turns = _marked(turns) or _in_front(turns, len(waiting))
    places = [place for turn in turns for place in _places(turn)]
    open_places = sum(place == _PLACE for place in places)
    if open_places != len(waiting):
        raise BadRow("malformed", f"{_counted(len(waiting), 'image')} and {_counted(open_places, 'place')} for images",
                     'as many images as parts {"type": "image"}; or none of these, and the images stand before the '
                     "user's first text")  # fmt: skip
    for place in places:
        sources.append(waiting.pop(0) if place == _PLACE else place.pop("image"))
    return turns, sources


def _in_parts(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn.get("content")
    return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else turn


def _places(turn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = turn.get("content")
    return (part for part in content if part["type"] == "image") if isinstance(content, list) else iter(())


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _TYPES


def _place(part: dict[str, Any]) -> dict[str, Any]:
    """The place of an image, with what it is read from where the part says so."""
    found = {key: part[key] for key in _SOURCES if not is_null(part.get(key))}
    if not found:
        return dict(_PLACE)
    if set(found) == {"bytes", "path"}:  # as `datasets` has it
        return {"type": "image", "image": found}
    if len(found) > 1:
        raise BadRow("malformed", f"a part with an image twice: {shown(sorted(found))}", "one of them")
    key, value = next(iter(found.items()))
    if key == "image_url":
        return {"type": "image", "image": value.get("url") if isinstance(value, dict) else value}
    return {"type": "image", "image": value if key == "image" else {key: value}}


def _marked(turns: Turns) -> Turns:
    """The turns with a place for every `<image>` in a text; empty where there is none."""
    if not any(_MARK in turn["content"] for turn in turns if isinstance(turn.get("content"), str)):
        return []
    return [{**turn, "content": _cut(turn["content"])} if _has_mark(turn) else turn for turn in turns]


def _has_mark(turn: Mapping[str, Any]) -> bool:
    return isinstance(turn.get("content"), str) and _MARK in turn["content"]


def _cut(text: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, piece in enumerate(text.split(_MARK)):
        if number:
            parts.append(dict(_PLACE))
        if piece := piece.strip("\n"):
            parts.append({"type": "text", "text": piece})
    return parts


def _in_front(turns: Turns, number: int) -> Turns:
    """The turns with places before the user's first text, as TRL puts them."""
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user" and isinstance(turn.get("content"), str)),
                 None)  # fmt: skip
    if first is None:
        return turns
    parts = [*(dict(_PLACE) for _ in range(number)), {"type": "text", "text": turns[first]["content"]}]
    return [{**turn, "content": parts} if i == first else turn for i, turn in enumerate(turns)]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
