"""Makes a set of rows with images: pictures of one shape in one colour, and the words for them.

    python scripts/make_shapes.py FOLDER                # 240 rows to learn, 60 to measure
    python scripts/make_shapes.py FOLDER --rows 1000 --size 64

Writes FOLDER/train.jsonl and FOLDER/validation.jsonl in prompt and completion, and the pictures below FOLDER/pictures.
Shape and colour are drawn evenly, place, size and ground at random; equal arguments make equal rows. Every shape is in
both sets, and no picture is in both.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {
    "red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 210), "yellow": (230, 210, 30),
    "black": (10, 10, 10), "white": (250, 250, 250),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
QUESTION = "what is in the picture"
_SCALE = 4
"""Times the size at which a picture is drawn before it is made smaller, so that edges are smooth."""


def picture(shape: str, colour: str, size: int, draw: random.Random) -> Image.Image:
    """A picture of `size` by `size` pixels with a shape on a ground of grey."""
    side = size * _SCALE
    image = Image.new("RGB", (side, side), (draw.randint(90, 160),) * 3)
    radius = draw.randint(side // 5, side // 3)
    x, y = (draw.randint(radius, side - radius) for _ in range(2))
    pen = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, fill=COLOURS[colour])
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=COLOURS[colour])
    return image.resize((size, size), Image.Resampling.LANCZOS)


def write(folder: Path, name: str, rows: int, size: int, seed: int) -> None:
    """Writes a set of rows and its pictures."""
    draw = random.Random(f"{seed} {name}")
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    chosen = [kinds[index % len(kinds)] for index in range(rows)]
    draw.shuffle(chosen)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
        for index, (shape, colour) in enumerate(chosen):
            place = f"pictures/{name}-{index}.png"
            picture(shape, colour, size, draw).save(folder / place)
            row = {
                "prompt": [{"role": "user", "content": QUESTION}],
                "completion": [{"role": "assistant", "content": f"a {colour} {shape}"}],
                "images": [place],
            }
            lines.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes rows with pictures of shapes, and the words for them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=240, help="rows to learn; a quarter as many are made to measure")
    parser.add_argument("--size", type=int, default=32, help="sides of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write(given.folder, "train", given.rows, given.size, given.seed)
    write(given.folder, "validation", max(len(SHAPES) * len(COLOURS), given.rows // 4), given.size, given.seed)


if __name__ == "__main__":
    main()
