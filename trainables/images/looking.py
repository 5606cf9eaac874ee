"""Turns the rows of a look into tokens where they have images: what each image costs, and what it looks like."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO
from typing import Any

from trainables.data import templates
from trainables.data.formats import Format
from trainables.data.look_sets import LookedSet
from trainables.data.look_tokens import Tokenized, TokenReader
from trainables.data.messages import BadRow
from trainables.images import collating, processors
from trainables.images.encoding import collated
from trainables.images.opening import decoded
from trainables.images.reading import ImageReader
from trainables.settings import Settings
from tuner.contract import InputError

_BUDGETS = (65_536, 262_144, 1_048_576)
"""Candidates for `data.max_pixels`: sides of 256, 512 and 1,024 pixels."""
_TRIED = 16
"""Images of a set whose cost is measured at every candidate."""
_THUMBNAIL = 160
"""Pixels of a thumbnail's longer side."""


class ImageTokenReader(TokenReader):
    """Turns rows with images into tokens, each by TRL's collator."""

    def __init__(self, settings: Settings, fmt: Format) -> None:
        """Loads the processor. Raises InputError."""
        data = settings.data
        processor, _ = processors.load(settings.model, data)
        template = templates.check(processor.tokenizer, fmt, data, settings.model.tokenizer, None, "")
        super().__init__(fmt, processor.tokenizer, data, template)
        self._processor = processor
        self._collator = collating.make(processor, data, fmt.name, template, cut=False)
        self._ids = processors.image_tokens(processor, processors.config_of(settings.model))
        self._reader = ImageReader(data)
        self._sizes: list[tuple[int, int]] = []
        """Width and height of every image that was read."""
        self._costs = array("q")
        """Tokens of an image, for every row with some."""
        self._tried: list[tuple[Any, str]] = []
        """What some images are read from, and the source of their rows."""

    def read(
        self, found: LookedSet, indices: Sequence[int], wanted: Collection[int]
    ) -> Iterator[Tokenized | tuple[int, InputError]]:
        """See TokenReader."""
        self._sizes, self._costs, self._tried = [], array("q"), []
        for index in indices:
            row, source = found.shaped[index], found.rows.source_of(index)
            try:
                images = [decoded(self._reader.read(one, source)) for one in row["images"]]
                batch = collated(self._collator, [{**row, "images": images}])
            except BadRow as bad:
                yield index, InputError(bad.what, where=found.rows.where(index), expected=bad.expected)
                continue
            ids = batch["input_ids"][0].tolist()
            self._sizes += [image.size for image in images]
            self._tried += [(one, source) for one in row["images"]][: _TRIED - len(self._tried)]
            if images:
                self._costs.append(sum(token in self._ids for token in ids) // len(images))
            shown = tuple(map(_thumbnail, images)) if index in wanted else ()
            yield Tokenized(index, ids, batch["labels"][0].tolist(), shown)

    def figures(self, found: LookedSet) -> dict[str, str]:
        """See TokenReader."""
        if not self._sizes:
            return {"images": "none"}
        ordered = sorted(self._sizes, key=lambda size: size[0] * size[1])
        (least_w, least_h), (most_w, most_h) = ordered[0], ordered[-1]
        said = f"{len(ordered):,}, {least_w:,} by {least_h:,} to {most_w:,} by {most_h:,} pixels as they are learned"
        cost = f"{_span(self._costs)} with data.max_pixels={self.data.max_pixels:,}"
        others = [f"{_span(costs)} with {most:,}" for most in _BUDGETS if (costs := self._at(most))]
        return {"images": said, "cost": "; ".join([cost, *others])}

    def _at(self, most: int) -> list[int]:
        """Tokens of some images with another `data.max_pixels`; none where the base has no chat template."""
        if self.tokenizer.chat_template is None or most == self.data.max_pixels:
            return []
        plain = {"completion_only_loss": None, "assistant_only_loss": False, "max_pixels": most}
        data = self.data.model_copy(update=plain)
        reader, collator = ImageReader(data), collating.make(self._processor, data, "messages", None, cut=False)
        turns = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a"}]
        costs = []
        for one, source in self._tried:
            try:
                batch = collated(collator, [{"messages": turns, "images": [decoded(reader.read(one, source))]}])
            except BadRow:
                continue
            costs.append(sum(token in self._ids for token in batch["input_ids"][0].tolist()))
        return costs


def _span(costs: Sequence[int]) -> str:
    least, most = min(costs), max(costs)
    return f"{least:,} tokens" if least == most else f"{least:,} to {most:,} tokens"


def _thumbnail(image: Any) -> str:
    """A small JPEG of an image, as a data URI."""
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    written = BytesIO()
    image.save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
