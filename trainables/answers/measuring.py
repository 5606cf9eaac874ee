"""Measures trials by their answers when they end: by the same rows for every trial, within a share of its time.

How many rows are answered is decided once, by the first trial that ends: as many as fit into a tenth of its time. The
others answer as many, so that their numbers are of the same rows.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.answers import metrics, sample
from trainables.answers.metrics import Score
from trainables.answers.prompts import Prompt
from trainables.settings import Settings
from trainables.settings.metrics import name_of
from tuner.contract import Preparation

SHARE = 0.1
"""Of a trial's seconds: what its answers may take."""
ANSWERS, COST = "answers", "answers_share"
"""Names under which an evaluation has the number of rows that were answered, and their share of the trial's seconds."""
_FIRST = 16
"""Rows by whose time it is decided how many are answered."""
_FEWEST = 8
_log = logging.getLogger(__name__)

Generate = Callable[[Sequence[list[int]]], list[list[list[int]]]]
"""From prompts of token ids to the ids of each trial's answers."""
Measured = dict[str, float | None]
"""By metric, its mean over the rows; None where it failed."""


def values_of(function: Score, asked: Sequence[Prompt], texts: Sequence[str]) -> tuple[list[float], str]:
    """A metric's value for each answer, and "": or no values, and why: where one fails, a mean over the others would
    leave out the very answers that it fails at."""
    values = []
    for prompt, text in zip(asked, texts, strict=True):
        try:
            value = float(function(prompt.text, prompt.reference, text))
        except Exception:
            return [], traceback.format_exc(limit=-3)
        if value - value != 0:  # NaN, or infinite
            return [], f"gave {value} for the answer {text!r:.100}"
        values.append(value)
    return values, ""


class Measurer:
    """What all trials of a worker are measured by."""

    def __init__(self, settings: Settings, preparation: Preparation, tokenizer: Any) -> None:
        self._settings, self._tokenizer = settings.metrics, tokenizer
        self._functions = {name_of(spec): metrics.find(spec)[1] for spec in settings.metrics.names}
        found = sample.read(preparation)
        self._prompts = found.prompts[: settings.metrics.rows]
        self._ends: list[int] = found.ends
        self.most_tokens: int = settings.metrics.max_answer_tokens or found.most_tokens
        folder = Path(preparation.folder)
        self._decided = folder.with_name(f"{folder.name}-answers.json")

    def stops(self, base: Any) -> list[int]:
        """The ids that end an answer of this base."""
        said = getattr(getattr(base, "generation_config", None), "eos_token_id", None)
        return sorted({*self._ends, *([said] if isinstance(said, int) else said or ())})

    def measure(self, generate: Generate, trials: int, seconds: float) -> list[Measured]:
        """The metrics of trials that have ended, and `ANSWERS` and `COST`. What fails is logged, with its traceback.

        generate: for all of these trials. seconds: that one of them has taken so far.
        """
        began = time.monotonic()
        try:
            ids = self._ids(generate, trials, seconds, began)
        except Exception:  # answers are shown beside the loss: a trial without them is as good
            _log.warning("no answers were generated:\n%s", traceback.format_exc())
            return [dict.fromkeys(self._functions) for _ in range(trials)]
        found = [self._scored(own) for own in ids]
        cost = time.monotonic() - began
        share = round(cost / trials / (seconds + cost), 4)
        return [{**own, ANSWERS: float(len(ids[0])), COST: share} for own in found]

    def _ids(self, generate: Generate, trials: int, seconds: float, began: float) -> list[list[list[int]]]:
        most = self._known()
        if most is not None:
            return generate([prompt.ids for prompt in self._prompts[:most]])
        first = generate([prompt.ids for prompt in self._prompts[:_FIRST]])
        each = (time.monotonic() - began) / min(_FIRST, len(self._prompts)) / trials
        most = self._decide(max(_FEWEST, int(SHARE * seconds / max(each, 1e-9))))
        if most <= _FIRST or len(self._prompts) <= _FIRST:
            return [own[:most] for own in first]
        more = generate([prompt.ids for prompt in self._prompts[_FIRST:most]])
        return [[*one, *other] for one, other in zip(first, more, strict=True)]

    def _known(self) -> int | None:
        try:
            return int(json.loads(self._decided.read_text(encoding="utf-8"))["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _decide(self, most: int) -> int:
        """Writes down how many rows are answered, unless another worker has; gives what is written."""
        most = min(most, len(self._prompts))
        with suppress(FileExistsError, OSError), self._decided.open("x", encoding="utf-8") as file:
            json.dump({"rows": most}, file)
        return self._known() or most

    def _scored(self, ids: Sequence[list[int]]) -> Measured:
        asked = self._prompts[: len(ids)]
        texts = [self._tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]
        found: Measured = {}
        for name, function in self._functions.items():
            values, why = values_of(function, asked, texts)
            if why:
                _log.warning("the metric %s is missing: %s", name, why)
            found[name] = sum(values) / len(values) if values else None
        return found
