"""Writes what belongs beside an adapter or a merged model: tokenizer, chat template, processor, generation config."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.data import contents

GENERATION = "generation_config.json"
"""How the base generates unless it is told otherwise: its end tokens, its temperature."""
TEMPLATE = "chat_template.jinja"
"""The file that a tokenizer keeps its chat template in."""
_PROCESSOR = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""The files of a processor of images, video or sound, which a base that takes them is served with."""
_OLD_TEMPLATE = "chat_template.json"
"""Where a processor kept its template before transformers 4.50."""


def write(tokenizer: Any, base: Path, to: Path) -> None:
    """Writes the tokenizer with its chat template, and the base's processor and generation config, into the folder
    `to`; files of these last two that are there already stay. base: the folder of the base's files. Raises OSError."""
    tokenizer.save_pretrained(str(to))
    old = () if (to / TEMPLATE).is_file() else (_OLD_TEMPLATE,)
    for name in (GENERATION, *_PROCESSOR, *old):
        if (base / name).is_file() and not (to / name).exists():
            shutil.copyfile(base / name, to / name)


def keep(tokenizer: Any, base: Path, place: Path) -> None:
    """Writes them as the folder `place`, in place of an earlier one, and their checksums beside it, for `are_whole`.
    The folder is complete if it is there. Raises OSError."""
    beside, old = (place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}") for _ in range(2))
    try:
        beside.mkdir(parents=True)
        write(tokenizer, base, beside)
        sums = json.dumps(contents.sums(beside))
        with suppress(FileNotFoundError):
            place.rename(old)
        try:
            beside.rename(place)
        except OSError:
            if not place.is_dir():  # else another process has written the same
                raise
        written = beside.with_name(f"{beside.name}.json")
        written.write_text(sums, encoding="utf-8")
        written.replace(sums_of(place))
    finally:
        for left_over in (beside, old):
            shutil.rmtree(left_over, ignore_errors=True)


def sums_of(place: Path) -> Path:
    """The file with the checksums of what `keep` wrote as the folder `place`."""
    return place.with_suffix(".json")


def are_whole(place: Path) -> bool:
    """Whether the files in the folder `place` are those that `keep` wrote. A tokenizer with one bit changed would load,
    and split words otherwise."""
    try:
        return bool(json.loads(sums_of(place).read_bytes()) == contents.sums(place))
    except (OSError, ValueError, RecursionError):
        return False
