"""Turns rows into `input_ids` and `labels`, exactly as SFTTrainer prepares them.

SFTTrainer would do it once a trial; here it is done once a search, and SFTTrainer skips it. A test compares every id
with a real SFTTrainer's. Labels are -100 where nothing is learned. Rows in which truncation leaves no label are
dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, takewhile
from typing import Any

from trainables.data.formats import Format
from trainables.data.review import turns_of
from trainables.data.rows import Row
from trainables.data.shaping import EARLIER, LEARNED
from trainables.data.templates import common, rendering, turns_without
from trainables.data.tokens import IGNORED, Tokens
from trainables.settings import DataSettings

_ROWS, _CHARACTERS = 1000, 2_000_000
"""Rows, and about how many characters of them, that are tokenized at a time: what a tokenizer returns for a text is 30
times as large."""

_Encoded = tuple[list[int], list[int] | None]
"""A row's token ids, and the mask of the assistant's tokens where it was asked for."""


def tokenize(
    rows: Iterable[Row],
    fmt: Format,
    tokenizer: Any,
    data: DataSettings,
    template: str | None = None,
    where: Callable[[int], str] = "row {}".format,
    full: Callable[[Tokens], None] | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Tokens:
    """Token ids and labels of all rows. Raises InputError where a chat template fails.

    template: replaces the tokenizer's chat template. where: from a row's index to its place, for a message. full: see
    `Tokens`. tell: gets the number of rows that are done.
    """
    result, done = Tokens(begin=tokenizer.bos_token_id, full=full), 0
    for some in _batches(rows):
        if fmt.name == "tokens":
            _ids(result, some, data)
        elif fmt.conversational:
            _conversations(result, some, fmt, tokenizer, data, template, lambda index, begin=done: where(begin + index))  # type: ignore[misc]
        else:
            _texts(result, some, fmt, tokenizer, data)
        done += len(some)
        tell(done)
    result.hand_over()
    return result


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in lists of bounded size."""
    some, size = list[Row](), 0
    for row in rows:
        some.append(row)
        size += sum(len(value) if isinstance(value, str) else len(str(value)) for value in row.values())
        if len(some) == _ROWS or size >= _CHARACTERS:
            yield some
            some, size = [], 0
    if some:
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
    masks = {"return_assistant_tokens_mask": True} if data.assistant_only_loss else {}
    whole = _encoded(tokenizer, rows, turns_of, template, where, **masks)
    prompts: Iterable[_Encoded | None] = [None] * len(rows)
    if fmt.name != "messages" and data.completion_only_loss is not False:
        prompts = _encoded(tokenizer, rows, lambda row: row["prompt"], template, where, add_generation_prompt=True)
    for index, (row, (ids, mask), prompt) in enumerate(zip(rows, whole, prompts, strict=True)):
        labels = ids
        if mask is not None:
            labels = [token if bit else IGNORED for token, bit in zip(ids, mask, strict=True)]
        if LEARNED in row:
            with rendering(where(index)):
                masked = _not_learned(row, tokenizer, ids, common(row, template))
            labels = [IGNORED if place in masked else label for place, label in enumerate(labels)]
        if prompt is None:
            result.add(ids, labels, data.max_length)
            continue
        spans = _earlier(row, ids, tokenizer, template, where(index)) if EARLIER in row else ()
        _add_completion(result, ids, prompt[0], data, labels, spans)


def _encoded(
    tokenizer: Any, rows: list[Row], turns: Callable[[Row], list[Any]], template: str | None,
    where: Callable[[int], str], **asked: Any,
) -> list[_Encoded]:  # fmt: skip
    """The token ids of conversations. Rows that share tools and arguments are written and tokenized together.
    Raises InputError with the place of a row that the template does not take."""

    def encode(some: list[Row], more: dict[str, Any]) -> Iterator[_Encoded]:
        found = tokenizer.apply_chat_template(
            [turns(row) for row in some], tokenize=True, return_dict=True, **asked, **more
        )
        masks = found["assistant_masks"] if "assistant_masks" in found else [None] * len(some)
        return zip(map(list, found["input_ids"]), masks, strict=True)

    result: list[_Encoded] = []
    for more, group in groupby(rows, lambda row: common(row, template)):
        some = list(group)
        try:
            result += encode(some, more)
        except Exception:  # a template is a program: one row at a time says which one it does not take
            for row in some:
                with rendering(where(len(result))):
                    result += encode([row], more)
    return result


def _earlier(row: Row, ids: list[int], tokenizer: Any, template: str | None, where: str) -> list[tuple[int, int]]:
    """Where the tokens of earlier answers begin and end: each is the completion of the turns before it."""
    answers = row[EARLIER]
    before = [{**row, "messages": row["prompt"][:place]} for place in answers]
    through = [{**row, "messages": row["prompt"][: place + 1]} for place in answers]

    def encoded(some: list[Row], **asked: Any) -> list[_Encoded]:
        return _encoded(tokenizer, some, lambda one: one["messages"], template, lambda _: where, **asked)

    begins, ends = encoded(before, add_generation_prompt=True), encoded(through)
    return [(_alike(one[0], ids), _alike(other[0], ids)) for one, other in zip(begins, ends, strict=True)]


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
    result: Tokens, ids: list[int], prompt: list[int], data: DataSettings, labels: list[int] | None = None,
    earlier: Iterable[tuple[int, int]] = (),
) -> None:  # fmt: skip
    """Adds a row. Its completion begins at the first token that differs from the prompt's, not behind as many tokens as
    the prompt has: the last ones may merge with the completion. earlier: where answers in the prompt begin and end."""
    begin = len(prompt) if ids[: len(prompt)] == prompt else _alike(prompt, ids)
    result.longest_prompt = max(result.longest_prompt, begin)
    labels = labels or ids
    masked = [IGNORED] * begin + labels[begin:]
    for first, last in earlier:
        masked[first:last] = labels[first:last]
    result.add(ids, masked, data.max_length)


def _ended(text: str, end: str) -> str:
    return text if text.endswith(end) else text + end
