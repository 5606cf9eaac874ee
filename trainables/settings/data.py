"""Section `data`: which rows, and how they become tokens."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from trainables.settings.section import PATH, Section

Column = Literal["prompt", "completion", "messages", "text", "images", "system", "tools", "history", "role", "content"]
"""What is read of a row; `role` and `content`, of a turn."""

_IMAGES = ("max_pixels", "image_folder", "image_urls", "max_bad_images")
"""Settings that rows of text do not depend on."""


class DataSettings(Section):
    """Which rows, and how they become tokens. Fixed for a whole search, because it defines what the loss means."""

    train: str | tuple[str, ...] = Field(min_length=1, json_schema_extra=PATH)
    """Training rows: a file (.jsonl, .json, .parquet, .csv, .tsv, .txt, also with .gz, .zst, .bz2, .xz), a pattern
    (`data/*.jsonl`), a folder of such files or one written by `datasets`, a hub id, or a list of these."""

    validation: str | tuple[str, ...] | None = Field(default=None, json_schema_extra=PATH)
    """Validation rows, in a form as for `train`; null: split from the training rows, once."""

    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training rows split off for validation when `validation` is null."""

    split: str = "train"
    """Which split of a hub dataset, or of a folder that has several; also a slice of it: `train[:50%]`."""

    validation_split: str | None = None
    """The split with the validation rows: of `validation`, or of `train` where that is null. null: the set's own split
    for validation if it has one."""

    name: str | None = None
    """Configuration name of a hub dataset."""

    revision: str | None = None
    """Branch, tag or commit of a hub dataset. It is resolved to a commit when the search begins."""

    validation_revision: str | None = None
    """As `revision`, for a hub dataset in `validation`; null: `revision`."""

    format: Literal["auto", "messages", "prompt-completion", "text"] = "auto"
    """Format of the rows, by TRL's name; auto: recognised by the columns."""

    text_field: str = "text"
    """The column that holds the text, in format `text`."""

    columns: dict[Column, str | None] = Field(default={})
    """The rows' own names for what is read: `{prompt: question, completion: answer}`. Of `prompt`, `completion`,
    `messages`, `text`, `images`, `system`, `tools`, `history` (pairs of a question and its answer, before the prompt),
    and `role` and `content` within a turn; null: not read. A column within another has a path: `answers.text`."""

    roles: dict[str, str] = Field(default={})
    """The roles of the chat template for the rows' own names: `{Clerk: assistant, Customer: user}`. Known without it:
    human, prompter, gpt, bot, chatbot, ai, model, chatgpt, observation."""

    prompt_template: str | None = Field(default=None, min_length=1)
    """The prompt with columns in braces, `"### Question: {question}\\n"`; in format `text`, the whole text."""

    as_chat: bool = False
    """Makes texts of prompt and completion a user's and an assistant's turn, which the chat template writes."""

    encoding: str = "utf-8"
    """Encoding of text files: `latin-1`, `utf-16` and others that Python knows."""

    on_bad_row: Literal["drop_empty", "drop", "refuse"] = "drop_empty"
    """What becomes of rows that cannot be learned. drop_empty: empty ones are left out, with a note, and malformed ones
    refused; drop: both are left out; refuse: both are refused."""

    on_duplicate: Literal["keep", "drop", "refuse"] = "keep"
    """What becomes of rows that are there more than once; they are counted in any case."""

    max_length: int = Field(default=1024, ge=2)
    """Longest row in tokens; longer rows are cut there."""

    max_train_rows: int | None = Field(default=None, ge=1)
    """At most this many training rows, after a seeded shuffle."""

    max_validation_rows: int | None = Field(default=None, ge=1)
    """At most this many validation rows, after a seeded shuffle."""

    max_pixels: int = Field(default=262144, ge=1024)
    """Larger images are made smaller, to this many pixels, before the base's processor sees them. An image may cost a
    token for every 784 pixels, and `max_length` must not cut its tokens: 262,144 pixels (512 by 512) are 334 tokens."""

    image_folder: str | None = Field(default=None, json_schema_extra=PATH)
    """The folder that images' paths are relative to and stay within; null: that of the file with the rows."""

    image_urls: bool = False
    """Fetch images that rows name by http or https, once, when the rows are prepared."""

    max_bad_images: float = Field(default=0.05, ge=0, lt=1)
    """With on_bad_row drop: at most this share of a set's rows is left out because of their images."""

    completion_only_loss: bool | None = None
    """Learn the completion only; null: true for prompt and completion rows, false for the others."""

    assistant_only_loss: bool = False
    """Learn the assistant's turns only. Needs conversational rows and a chat template that marks these turns."""

    chat_template: str | None = Field(default=None, json_schema_extra=PATH)
    """A .jinja file that replaces the tokenizer's chat template."""

    seed: int = Field(default=0, ge=0)
    """Seed of the validation split and of the choice of rows."""

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return tuple(given) if isinstance(given, list) else given

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "a".encode(encoding)
        except LookupError:
            raise ValueError(f"no encoding {encoding!r}: latin-1, cp1252 and utf-16 are some") from None
        return encoding

    def said(self) -> dict[str, Any]:
        """What the token ids depend on: of settings for images, those that are not their defaults, so that the
        fingerprints of rows of text are those that earlier versions gave."""
        fields, dumped = type(self).model_fields, self.model_dump()
        return {name: value for name, value in dumped.items() if name not in _IMAGES or value != fields[name].default}

    @model_validator(mode="after")
    def _one_mask(self) -> DataSettings:
        if self.completion_only_loss and self.format in ("messages", "text"):
            raise ValueError(f"completion_only_loss needs prompt and completion rows, format is {self.format}")
        if self.assistant_only_loss and self.format == "text":
            raise ValueError("assistant_only_loss needs conversational rows, format is text")
        return self
