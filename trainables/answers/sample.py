"""The validation rows that every trial of a search answers, drawn once and kept beside the tokenized rows.

Torch-free.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainables.answers import prompts
from trainables.answers.prompts import Prompt
from trainables.data.formats import Format
from trainables.data.rows import Row, Rows
from trainables.settings import Settings
from tuner.contract import InputError, Preparation

FILE = "answers.json"
MOST = 200
"""Rows of a sample, at most; a search may answer fewer of them."""
_LIMIT = 256


@dataclass(frozen=True)
class Sample:
    """Rows in the order in which they are answered: a search that answers fewer takes the first ones."""

    prompts: list[Prompt]
    ends: list[int]
    """Ids that end an answer, beside those of the base's generation config."""
    most_tokens: int
    """Tokens of an answer, at most, where the settings do not say."""


def draw(
    settings: Settings, rows: Rows, shaped: Sequence[Row], fmt: Format, tokenizer: Any, template: str | None
) -> Sample:
    """Draws the sample. rows, shaped: the validation rows, as they are and in TRL's format. Raises InputError where
    none has a prompt and an answer."""
    order = list(range(len(shaped)))
    random.Random(settings.data.seed).shuffle(order)  # noqa: S311  a sample is no secret
    found: list[Prompt] = []
    for at in order:
        found += prompts.prompts([(at, shaped[at])], fmt, tokenizer, template, rows.where)
        if len(found) == MOST:
            break
    if not found:
        raise InputError(f"no validation row has a prompt and an answer: the rows are {fmt}", where="metrics",
                         expected="prompt and completion, or messages",
                         remedy="leave metrics out")  # fmt: skip
    ends = prompts.stops(tokenizer, None, [shaped[order[0]]], fmt)
    return Sample(found, ends, tokens_of(found, tokenizer))


def tokens_of(asked: Sequence[Prompt], tokenizer: Any) -> int:
    """Tokens that an answer may have: twice those of the longest answer of the rows, and 16; 256 at most."""
    longest = max((len(tokenizer(prompt.reference)["input_ids"]) for prompt in asked), default=0)
    return min(_LIMIT, 2 * longest + 16)


def write(sample: Sample, file: Path) -> None:
    """Writes a sample. Raises OSError."""
    file.write_text(json.dumps(asdict(sample)), encoding="utf-8")


def read(preparation: Preparation) -> Sample:
    """The sample that the rows were prepared with."""
    said = json.loads((Path(preparation.folder) / FILE).read_text(encoding="utf-8"))
    return Sample([Prompt(**one) for one in said["prompts"]], said["ends"], said["most_tokens"])
