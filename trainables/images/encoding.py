"""Turns rows with images into token ids and labels, as TRL's collator gives them to the model.

Each row goes through the collator alone: what is counted, checked and shown is what is trained on. Images are read
once, and kept for the search as the trials get them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from trainables.data import review, store, templates
from trainables.data.bad_rows import BadRows
from trainables.data.encoding import Encoder
from trainables.data.findings import Finding, counting
from trainables.data.messages import BadRow
from trainables.data.review import Review
from trainables.data.rows import Row, Rows
from trainables.data.tokens import Tokens
from trainables.images import collating, processors
from trainables.images.blob import FILE, BlobWriter, Place
from trainables.images.opening import decoded
from trainables.images.reading import ImageReader
from trainables.images.vision import FACT
from trainables.settings import DataSettings, ModelSettings
from tuner.contract import InputError, Tell


class ImageEncoder(Encoder):
    """Turns rows with images into token ids and labels."""

    def __init__(self, model: ModelSettings, data: DataSettings) -> None:
        """Loads the processor. Raises InputError."""
        self._data = data
        self._place = data.chat_template or model.model_name_or_path
        self._processor, self.notes = processors.load(model, data)
        self.tokenizer = self._processor.tokenizer
        self._files = processors.fingerprints(model)
        self._image_ids = processors.image_tokens(self._processor, processors.config_of(model))
        self._reader = ImageReader(data)
        self._blob: BlobWriter | None = None
        self._format = ""
        self._template: str | None = None
        self._images = self._without = self._most = 0

    def close(self) -> None:
        """See Encoder."""
        if self._blob is not None:
            self._blob.close()

    def check(self, part: Review) -> list[Finding]:
        """See Encoder. A template's places for images are checked with every row, when it is encoded."""
        return []

    def encode(
        self, name: str, rows: Rows, part: Review, draft: store.Draft, tell: Tell
    ) -> tuple[Tokens, list[Finding]]:
        """See Encoder."""
        data, fmt = self._data, part.format
        if data.assistant_only_loss and fmt.name != "messages":
            raise InputError(f"assistant_only_loss with {fmt} rows that have images", where="data.assistant_only_loss",
                             expected="rows in messages: TRL's collator marks turns in these alone",
                             remedy="set data.assistant_only_loss to false")  # fmt: skip
        self._format = fmt.name
        self._template = templates.check(self.tokenizer, fmt, data, self._place, None, rows.where(0))
        collator = collating.make(self._processor, data, fmt.name, self._template, cut=False)
        self._blob = self._blob or BlobWriter(draft.file(FILE))
        tokens, bad = Tokens(full=draft.writer(name, with_texts=True)), BadRows(rows)
        count = counting(tell, f"reading the images of the {name} rows", len(rows))
        examples: dict[bool, tuple[int, Row]] = {}
        for index, row in enumerate(review.shaped(rows, fmt, data)):
            count(index)
            try:
                contents = [self._reader.read(one, rows.source_of(index)) for one in row["images"]]
                example = {**row, "images": [decoded(content) for content in contents]}
                self._add(tokens, row, contents, collated(collator, [example]))
            except BadRow as found:
                bad.add(found, index)
                continue
            examples.setdefault(bool(contents), (index, example))
        tokens.hand_over()
        findings = list(bad.findings(data, len(rows) - len(bad), every=True))
        _require_share(bad, data, rows)
        if len(examples) > 1:
            _require_mixed(collator, examples, rows)
        changed = [Finding("read_as", f"{count:,} images {what}") for what, count in self._reader.changed.items()]
        self._reader.changed.clear()
        if not fmt.conversational:
            end = self.tokenizer.eos_token
            changed.append(Finding("read_as", f"nothing is put behind a completion with images: the end {end!r} is "
                                   "learned where the rows have it; data.as_chat writes it"))  # fmt: skip
        return tokens, [replace(finding, rows=name) for finding in (*findings, *changed)]

    def facts(self) -> dict[str, Any]:
        """See Encoder."""
        return {
            FACT: {
                "images": self._images,
                "rows_without": self._without,
                "most_tokens": self._most,
                "max_pixels": self._data.max_pixels,
                "processor": type(self._processor).__name__,
                "image_processor": type(self._processor.image_processor).__name__,
                "files": self._files,
                "format": self._format,
                "template": self._template,
            }
        }

    def _add(self, tokens: Tokens, row: Row, contents: list[bytes], batch: Any) -> None:
        """Adds a row as it was collated. Raises BadRow where max_length would cut an image, and InputError."""
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        places = [place for place, token in enumerate(ids) if token in self._image_ids]
        if contents and not places:
            raise BadRow("malformed", "the chat template writes no place for its images", "a template of the base")
        if contents and places[-1] >= self._data.max_length:
            raise BadRow("malformed", f"its images reach beyond data.max_length={self._data.max_length}: cut, they "
                         "would have fewer tokens than the base has features for them",
                         "images that end within it: raise data.max_length, or lower data.max_pixels")  # fmt: skip
        assert self._blob is not None
        try:
            kept: list[Place] = [self._blob.add(content) for content in contents]
        except OSError as error:
            raise InputError(f"the images cannot be written ({error.strerror or error})", where=str(self._blob.path),
                             remedy="free some space, or set run.storage_path to another disk") from None  # fmt: skip
        before = tokens.rows
        text = json.dumps({**row, "images": kept}, default=str)
        tokens.add(ids, labels, self._data.max_length, text)
        if tokens.rows == before:
            return
        tokens.image_tokens += len(places)
        self._images += len(contents)
        self._without += not contents
        self._most = max(self._most, len(places) // max(1, len(contents)))


def collated(collator: Any, examples: list[Row]) -> Any:
    """A batch. Raises BadRow for rows that template or processor do not take."""
    try:
        return collator([dict(example) for example in examples])
    except Exception as error:  # of a template, of an image processor, of TRL
        told = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadRow("malformed", f"chat template or processor do not take this row ({type(error).__name__}: {told})",
                     "messages and images as they want them") from None  # fmt: skip


def _require_share(bad: BadRows, data: DataSettings, rows: Rows) -> None:
    if len(bad) > data.max_bad_images * len(rows):
        raise InputError(
            f"{len(bad):,} of {len(rows):,} rows cannot be used because of their images", where=bad.where,
            expected=f"at most {data.max_bad_images:.0%}, as data.max_bad_images says",
            remedy="mend them, or raise data.max_bad_images",
        )  # fmt: skip


def _require_mixed(collator: Any, examples: dict[bool, tuple[int, Row]], rows: Rows) -> None:
    """Raises InputError where the processor takes no batch of rows with images and without."""
    some, none = examples[True][1], examples[False][1]
    try:
        for batch in ([some, none], [none, some]):
            collated(collator, batch)
    except BadRow as found:
        raise InputError(
            f"a row without an image among rows with images, which this base's processor does not take: {found.what}",
            where=rows.where(examples[False][0]), expected="an image in every row, or in none",
            remedy="take the rows without images out",
        ) from None  # fmt: skip
