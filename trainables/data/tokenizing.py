"""Turns rows into `input_ids` and `labels`, exactly as SFTTrainer prepares them.

SFTTrainer would do it once a trial; here it is done once a search, and SFTTrainer skips it. A test compares every id
with a real SFTTrainer's. Labels are -100 where nothing is learned. Rows in which truncation leaves no label are
dropped.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from trainables.data.formats import Format
from trainables.data.review import turns_of
from trainables.data.rows import Row
from trainables.data.shaping import LEARNED
from trainables.data.templates import common, rendering, turns_without
from trainables.settings import DataSettings

IGNORED = -100
"""The label of a token that is no target, as torch's cross-entropy has it."""


_BATCH = 1000
"""Rows that are tokenized at a time."""


@dataclass
class Tokens:
    """Tokenized rows as two flat arrays and the end of each row, and what was left out."""

    input_ids: array[int] = field(default_factory=lambda: array("i"))
    """[tokens] int32."""
    labels: array[int] = field(default_factory=lambda: array("i"))
    """[tokens] int32: the token's id, or -100 where it is no target."""
    ends: array[int] = field(default_factory=lambda: array("q"))
    """[rows] int64: where each row ends, which is the index of the token behind its last."""
    label_tokens: int = 0
    """Number of targets. The first token of a row is never one: no token predicts it."""
    dropped: int = 0
    """Rows left out because no label is within max_length."""
    truncated: int = 0
    """Rows longer than max_length."""
    longest: int = 0
    """Tokens of the longest row before truncation."""
    longest_prompt: int = 0
    """Tokens of the longest prompt, before truncation."""
    masked_prompts: int = 0
    """Rows that have labels, but all of them beyond max_length."""

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, ids: list[int], labels: list[int], limit: int) -> None:
        """Adds a row, cut to `limit` tokens; drops it where no label is left."""
        self.longest = max(self.longest, len(ids))
        if len(ids) > limit:
            self.truncated += 1
        learned = any(label != IGNORED for label in labels)
        ids, labels = ids[:limit], labels[:limit]
        if not any(label != IGNORED for label in labels):
            self.dropped += 1
            self.masked_prompts += learned
            return
        self.input_ids.extend(ids)
        self.labels.extend(labels)
        self.ends.append(len(self.input_ids))
        self.label_tokens += sum(label != IGNORED for label in labels[1:])


def tokenize(
    rows: Iterable[Row],
    fmt: Format,
    tokenizer: Any,
    data: DataSettings,
    template: str | None = None,
    where: Callable[[int], str] = "row {}".format,
    tell: Callable[[int], None] = lambda done: None,
) -> Tokens:
    """Token ids and labels of all rows. Raises InputError where a chat template fails.

    template: replaces the tokenizer's chat template. where: from a row's index to its place, for a message. tell: gets
    the number of rows that are done, now and then.
    """
    result, done = Tokens(), 0
    for some in _batches(rows):
        if fmt.name == "tokens":
            _ids(result, some, data)
        elif fmt.conversational:
            _conversations(result, some, fmt, tokenizer, data, template, lambda index, begin=done: where(begin + index))  # type: ignore[misc]
        else:
            _texts(result, some, fmt, tokenizer, data)
        done += len(some)
        tell(done)
    return result


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in lists of bounded size: what a tokenizer returns for a text is 30 times as large."""
    iterator = iter(rows)
    while some := list(islice(iterator, _BATCH)):
        yield some


def _ids(result: Tokens, rows: list[Row], data: DataSettings) -> None:
    """Adds rows that are tokenized already."""
    for row in rows:
        ids = row["input_ids"]
        labels: list[int] = list(row.get("labels") or ids)
        if "labels" not in row:
            masks = ["assistant_masks"] + ([] if data.completion_only_loss is False else ["completion_mask"])
            for mask in (row[name] for name in masks if name in row):
                labels = [label if bit else IGNORED for label, bit in zip(labels, mask, strict=True)]
        result.add(ids, labels, data.max_length)


def _texts(result: Tokens, rows: list[Row], fmt: Format, tokenizer: Any, data: DataSettings) -> None:
    end = tokenizer.eos_token
    last = "text" if fmt.name == "text" else "completion"
    texts = [row.get("prompt", "") + _ended(row[last], end) for row in rows]
    ids = tokenizer(text=texts)["input_ids"]
    if fmt.name == "text" or data.completion_only_loss is False:
        for row_ids in ids:
            result.add(row_ids, row_ids, data.max_length)
        return
    prompts = tokenizer(text=[row["prompt"] for row in rows])["input_ids"]
    for row_ids, prompt_ids in zip(ids, prompts, strict=True):
        _add_completion(result, row_ids, prompt_ids, data)


def _conversations(
    result: Tokens, rows: list[Row], fmt: Format, tokenizer: Any, data: DataSettings, template: str | None,
    where: Callable[[int], str],
) -> None:  # fmt: skip
    for index, row in enumerate(rows):
        with rendering(where(index)):
            _add_conversation(result, row, fmt, tokenizer, data, template)


def _add_conversation(
    result: Tokens, row: Row, fmt: Format, tokenizer: Any, data: DataSettings, template: str | None
) -> None:
    more = common(row, template)
    masks = {"return_assistant_tokens_mask": True} if data.assistant_only_loss else {}
    encoded = tokenizer.apply_chat_template(turns_of(row), tokenize=True, return_dict=True, **masks, **more)
    ids, labels = list(encoded["input_ids"]), list(encoded["input_ids"])
    if data.assistant_only_loss:
        labels = [token if bit else IGNORED for token, bit in zip(ids, encoded["assistant_masks"], strict=True)]
    if LEARNED in row:
        masked = _not_learned(row, tokenizer, ids, more)
        labels = [IGNORED if place in masked else label for place, label in enumerate(labels)]
    if fmt.name == "messages" or data.completion_only_loss is False:
        result.add(ids, labels, data.max_length)
        return
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tokenize=True, return_dict=True, add_generation_prompt=True, **more
    )
    _add_completion(result, ids, list(prompt["input_ids"]), data, labels)


def _not_learned(row: Row, tokenizer: Any, ids: list[int], more: dict[str, Any]) -> set[int]:
    """The places of the tokens of turns that are read and not learned: all that the template writes for them."""
    turns = turns_of(row)
    text = tokenizer.apply_chat_template(turns, tokenize=False, **more)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if list(encoded["input_ids"]) != ids:
        raise ValueError("the tokens of turns with weight 0 cannot be told from others")
    spans = [_span(row, i, text, tokenizer, more) for i, learned in enumerate(row[LEARNED]) if not learned]
    return {
        place
        for place, (begin, end) in enumerate(encoded["offset_mapping"])
        if any(begin < last and first < end for first, last in spans)
    }


def _span(row: Row, index: int, text: str, tokenizer: Any, more: dict[str, Any]) -> tuple[int, int]:
    """Where a turn begins and ends in the text of a conversation."""
    turns = turns_of(row)
    try:
        before, through = (tokenizer.apply_chat_template(turns[:n], tokenize=False, **more) for n in (index, index + 1))
    except Exception:  # templates require an order of roles, and a first turn
        before, through = text, ""
    if text.startswith(before) and text.startswith(through):
        return len(before), len(through)
    # The template writes a turn with what follows it in mind: what its content alone changes
    other = tokenizer.apply_chat_template(turns_without(row, index, "\0"), tokenize=False, **more)
    first = _alike(text, other)
    return first, len(text) - _alike(text[first:][::-1], other[first:][::-1])


def _alike(one: Iterable[Any], other: Iterable[Any]) -> int:
    """How many items are equal from the beginning on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _add_completion(
    result: Tokens, ids: list[int], prompt: list[int], data: DataSettings, labels: list[int] | None = None
) -> None:
    """Adds a row. Its completion begins at the first token that differs from the prompt's, not behind as many tokens as
    the prompt has: the last ones may merge with the completion."""
    begin = _alike(prompt, ids)
    result.longest_prompt = max(result.longest_prompt, begin)
    result.add(ids, [IGNORED] * begin + (labels or ids)[begin:], data.max_length)


def _ended(text: str, end: str) -> str:
    return text if text.endswith(end) else text + end
