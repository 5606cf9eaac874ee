"""Rows as prompts to generate from, and the answers that they have. Torch-free."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.data.formats import Format
from trainables.data.review import turns_of
from trainables.data.rows import Row
from trainables.data.templates import common, rendering

_SHOWN = 4000
"""Most characters of a prompt that are kept to be shown and scored."""
_MARKER = "Answer417"
"""An answer whose end is found in what a chat template writes."""


@dataclass(frozen=True)
class Prompt:
    """A row to generate an answer for."""

    row: int
    """The row's index in its set."""
    ids: list[int]
    """The token ids that the answer follows."""
    text: str
    """The prompt as a person reads it: without the chat template's own signs."""
    reference: str
    """The row's own answer."""


def sampled(total: int, most: int, seed: int) -> list[int]:
    """At most `most` of `total` indices, drawn once from a seed, ascending."""
    if total <= most:
        return list(range(total))
    return sorted(random.Random(seed).sample(range(total), most))  # noqa: S311  a sample is no secret


def prompts(
    rows: Sequence[tuple[int, Row]], fmt: Format, tokenizer: Any, template: str | None, where: Callable[[int], str]
) -> list[Prompt]:
    """The prompts of rows in TRL's format, each with its index; rows without an answer in text are left out.

    template: replaces the tokenizer's chat template. where: from a row's index to its place, for a message. Raises
    InputError where a chat template fails.
    """
    if fmt.name in ("text", "tokens"):
        return []
    found = []
    for index, row in rows:
        prompt = (
            _of_turns(index, row, tokenizer, template, where) if fmt.conversational else _of_text(index, row, tokenizer)
        )
        if prompt is not None:
            found.append(prompt)
    return found


def stops(tokenizer: Any, base: Any, rows: Sequence[Row], fmt: Format) -> list[int]:
    """The ids of the tokens at which an answer ends: those of the base's generation config, the tokenizer's end token,
    and the sign that the chat template writes behind a turn of the assistant. base: None: without it."""
    said = getattr(getattr(base, "generation_config", None), "eos_token_id", None)
    found = [said] if isinstance(said, int) else list(said or ())
    found += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    if fmt.conversational and rows:
        found += _turn_end(tokenizer, rows[0])
    return sorted({int(one) for one in found})


def _of_text(index: int, row: Row, tokenizer: Any) -> Prompt | None:
    if not row["completion"].strip():
        return None
    ids = list(tokenizer(text=row["prompt"])["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id and not row["prompt"].endswith(str(tokenizer.eos_token)):
        ids.pop()  # some tokenizers end every text with it, and behind an end nothing follows
    return Prompt(index, ids, row["prompt"][-_SHOWN:], row["completion"].strip()) if ids else None


def _of_turns(index: int, row: Row, tokenizer: Any, template: str | None, where: Callable[[int], str]) -> Prompt | None:
    turns, place = turns_of(row), _answered(row)
    if not place:  # None, or an answer that nothing comes before
        return None
    with rendering(where(index)):
        found = tokenizer.apply_chat_template(
            turns[:place], tokenize=True, return_dict=True, add_generation_prompt=True, **common(row, template)
        )
    said = "\n\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in turns[:place])
    return Prompt(index, list(found["input_ids"]), said[-_SHOWN:], turns[place]["content"].strip())


def _answered(row: Row) -> int | None:
    """The place of the turn that is to be answered: the first of a completion, the assistant's last in messages."""
    turns = turns_of(row)
    places = [at for at, turn in enumerate(turns) if turn["role"] == "assistant"
              and isinstance(turn.get("content"), str) and turn["content"].strip()]  # fmt: skip
    if "messages" in row:
        return places[-1] if places else None
    first = len(row["prompt"])
    return first if first in places else None


def _turn_end(tokenizer: Any, row: Row) -> list[int]:
    """The sign that ends a turn of the assistant; empty where the template writes none that is a token of its own."""
    turns = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": _MARKER}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, **common(row, None))
    except Exception:  # it requires something else of its turns
        return []
    behind = tokenizer(text.rpartition(_MARKER)[2], add_special_tokens=False)["input_ids"] if _MARKER in text else []
    return [int(behind[0])] if behind and behind[0] in _special(tokenizer) else []


def _special(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
