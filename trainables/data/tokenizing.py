"""Turns rows into `input_ids` and `labels`, exactly as SFTTrainer prepares them.

SFTTrainer would do it once a trial; here it is done once a search, and SFTTrainer skips it. A test compares every id
with a real SFTTrainer's. Labels are -100 where nothing is learned. Rows in which truncation leaves no label are
dropped.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from trainables.data.formats import Format
from trainables.data.reading import Row
from trainables.settings import DataSettings
from tuner.contract import InputError

IGNORED = -100
"""The label of a token that is no target, as torch's cross-entropy has it."""


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


def check_template(tokenizer: Any, fmt: Format, data: DataSettings, where: str, first: Row, row: str) -> str | None:
    """Raises InputError for masks, formats and templates that cannot work together; gives the template that marks the
    assistant's turns, or None where none is needed.

    where: the tokenizer, or the template's file, for the message. first: a row as `normalize` makes it; row: its place.
    """
    if data.assistant_only_loss and not fmt.conversational:
        raise InputError(f"assistant_only_loss with {fmt} rows", where="data.assistant_only_loss",
                         expected="conversational rows")  # fmt: skip
    if data.completion_only_loss and fmt.name != "prompt-completion":
        raise InputError(f"completion_only_loss with {fmt} rows", where="data.completion_only_loss",
                         expected="prompt and completion rows", remedy="leave it null")  # fmt: skip
    if not fmt.conversational:
        if tokenizer.eos_token is None:
            raise InputError("the tokenizer has no end-of-sequence token", where=where,
                             expected="an eos_token, which ends every row")  # fmt: skip
        return None
    if tokenizer.chat_template is None:
        raise InputError(f"{fmt} rows, and the tokenizer has no chat template", where=where,
                         expected="a chat_template in the tokenizer", remedy="set data.chat_template to a .jinja file, "
                         "or use prompt and completion texts")  # fmt: skip
    _sees_messages(tokenizer, first, where, row)
    if not data.assistant_only_loss:
        return None
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return None
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:
        raise InputError("the chat template does not mark the assistant's turns", where="data.assistant_only_loss",
                         expected="{% generation %} ... {% endgeneration %} around them",
                         remedy="set data.chat_template to a template that has them") from None  # fmt: skip


def _sees_messages(tokenizer: Any, first: Row, where: str, row: str) -> None:
    """Raises InputError for a template that ignores the messages: all rows would be the same text."""
    turns = _turns(first)
    changed = [
        {**turn, "content": f"something else {i}"} if "content" in turn else turn for i, turn in enumerate(turns)
    ]
    with _rendering(row, where):
        text = tokenizer.apply_chat_template(turns, tokenize=False, **_common(first, None))
    try:
        other = tokenizer.apply_chat_template(changed, tokenize=False, **_common(first, None))
    except Exception:
        return  # it reads the content, and requires something of it that the changed one has not
    if turns != changed and text == other:
        raise InputError(f"the chat template ignores the messages: it writes {text!r:.60} whatever they say",
                         where=where, expected="a template that writes each message's content",
                         remedy="set data.chat_template to a .jinja file, or leave it null for the tokenizer's own",
                         )  # fmt: skip


@contextmanager
def _rendering(row: str, template: str = "") -> Iterator[None]:
    """Within it, errors of a chat template, which is a program, are raised as InputError with the row."""
    from jinja2 import TemplateSyntaxError

    try:
        yield
    except TemplateSyntaxError as error:
        raise InputError(f"the chat template is malformed: {error.message}, in its line {error.lineno}",
                         where=template or row, expected="a Jinja template",
                         remedy="mend it, or set data.chat_template to another") from None  # fmt: skip
    except Exception as error:
        told = (str(error).strip().splitlines() or [""])[0][:200]
        raise InputError(f"the chat template does not take this row ({type(error).__name__}: {told})", where=row,
                         expected="messages, tools and chat_template_kwargs as the template wants them",
                         remedy="mend the row, or set data.chat_template to another template") from None  # fmt: skip


def tokenize(
    rows: list[Row],
    fmt: Format,
    tokenizer: Any,
    data: DataSettings,
    template: str | None = None,
    where: Callable[[int], str] = "row {}".format,
) -> Tokens:
    """Token ids and labels of all rows. Raises InputError where a chat template fails.

    template: replaces the tokenizer's chat template. where: from a row's index to its place, for a message.
    """
    if fmt.conversational:
        return _conversations(rows, fmt, tokenizer, data, template, where)
    return _texts(rows, fmt, tokenizer, data)


def _texts(rows: list[Row], fmt: Format, tokenizer: Any, data: DataSettings) -> Tokens:
    result = Tokens()
    end = tokenizer.eos_token
    last = "text" if fmt.name == "text" else "completion"
    texts = [row.get("prompt", "") + _ended(row[last], end) for row in rows]
    ids = tokenizer(text=texts)["input_ids"]
    if fmt.name == "text" or data.completion_only_loss is False:
        for row_ids in ids:
            result.add(row_ids, row_ids, data.max_length)
        return result
    prompts = tokenizer(text=[row["prompt"] for row in rows])["input_ids"]
    for row_ids, prompt_ids in zip(ids, prompts, strict=True):
        _add_completion(result, row_ids, prompt_ids, data)
    return result


def _conversations(
    rows: list[Row], fmt: Format, tokenizer: Any, data: DataSettings, template: str | None, where: Callable[[int], str]
) -> Tokens:
    result = Tokens()
    for index, row in enumerate(rows):
        with _rendering(where(index)):
            _add_conversation(result, row, fmt, tokenizer, data, template)
    return result


def _add_conversation(
    result: Tokens, row: Row, fmt: Format, tokenizer: Any, data: DataSettings, template: str | None
) -> None:
    common = _common(row, template)
    masks = {"return_assistant_tokens_mask": True} if data.assistant_only_loss else {}
    encoded = tokenizer.apply_chat_template(_turns(row), tokenize=True, return_dict=True, **masks, **common)
    ids, labels = list(encoded["input_ids"]), list(encoded["input_ids"])
    if data.assistant_only_loss:
        labels = [token if bit else IGNORED for token, bit in zip(ids, encoded["assistant_masks"], strict=True)]
    if fmt.name == "messages" or data.completion_only_loss is False:
        result.add(ids, labels, data.max_length)
        return
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tokenize=True, return_dict=True, add_generation_prompt=True, **common
    )
    _add_completion(result, ids, list(prompt["input_ids"]), data, labels)


def _turns(row: Row) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
    return turns


def _common(row: Row, template: str | None) -> dict[str, Any]:
    """Arguments of the chat template besides the messages: the template, the row's tools and its own arguments."""
    tools = json.loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools")
    return {"chat_template": template, "tools": tools, **row.get("chat_template_kwargs", {})}


def _add_completion(
    result: Tokens, ids: list[int], prompt: list[int], data: DataSettings, labels: list[int] | None = None
) -> None:
    """Adds a row. Its completion begins at the first token that differs from the prompt's, not behind as many tokens as
    the prompt has: the last ones may merge with the completion."""
    begin = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, ids, strict=False)))
    result.longest_prompt = max(result.longest_prompt, begin)
    result.add(ids, [IGNORED] * begin + (labels or ids)[begin:], data.max_length)


def _ended(text: str, end: str) -> str:
    return text if text.endswith(end) else text + end
