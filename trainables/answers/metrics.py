"""Scores one answer beside the row's own. Torch-free.

Every metric takes a row's prompt, its reference and the model's answer, and gives a number. A metric of the user's own
has the same form; it is not in here, because it runs in a process of its own (`tuner.guest`).
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from tuner.contract import InputError

Score = Callable[[str, str, str], float]
"""From a row's prompt, its reference and the model's answer to a number."""


@dataclass(frozen=True)
class Metric:
    """A metric by name."""

    name: str
    """Its name in a list of metrics ("rouge_l")."""
    description: str
    """What it measures, in half a sentence."""
    make: Callable[[str], Score]
    """Makes the function, from the text behind the name's colon. Raises ValueError where that text is none that it
    takes."""
    direction: Literal["minimize", "maximize"] = "maximize"
    """Which way is better."""
    takes: str = ""
    """What stands behind the colon, in words; "" where nothing may stand there."""


def find(spec: str, where: str = "metrics") -> tuple[Metric, Score]:
    """The metric that `spec` names, `name` or `name:text`, and its function. Raises InputError.

    where: the option or setting, for the message.
    """
    name, colon, text = spec.partition(":")
    metric = METRICS.get(name)
    if metric is None:
        own = ", or package.module:function" if where.startswith("--") else "; your own are for `evaluate`"
        raise InputError(f"no metric {name!r}", where=where, expected=f"one of {', '.join(METRICS)}{own}")
    if colon and not metric.takes:
        raise InputError(f"the metric {name} takes nothing behind its name, and got {text!r}", where=where,
                         expected=name)  # fmt: skip
    try:
        return metric, metric.make(text)
    except ImportError:
        raise InputError(f"the metric {name} needs sacrebleu, which is not installed", where=where,
                         remedy="python -m pip install 'sacrebleu>=2.6', or leave it out") from None  # fmt: skip
    except ValueError as error:
        raise InputError(f"the metric {name}: {error}", where=where,
                         expected=f"{name}: and behind it {metric.takes}") from None  # fmt: skip


def is_known(spec: str) -> bool:
    """Whether a spec names a metric of these; else it is the user's own."""
    return spec.partition(":")[0] in METRICS


def _exact_match(prompt: str, reference: str, answer: str) -> float:
    return float(" ".join(answer.split()) == " ".join(reference.split()))


def _contains(prompt: str, reference: str, answer: str) -> float:
    return float(" ".join(reference.split()) in " ".join(answer.split()))


def _regex(text: str) -> Score:
    if not text:
        raise ValueError("no pattern is given")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"the pattern {text!r} cannot be read ({error})") from None

    def found(given: str) -> str | None:
        matches = list(pattern.finditer(given))
        return None if not matches else (matches[-1].group(1 if pattern.groups else 0) or "").strip()

    def score(prompt: str, reference: str, answer: str) -> float:
        wanted, got = found(reference), found(answer)
        return float(got is not None and got == (reference.strip() if wanted is None else wanted))

    return score


def _json_fields(text: str) -> Score:
    names = [name.strip() for name in text.split(",") if name.strip()]

    def score(prompt: str, reference: str, answer: str) -> float:
        wanted = _object_in(reference)
        if wanted is None:
            raise ValueError(f"the row's own answer has no JSON object: {reference!r:.80}")
        fields = dict(_fields(wanted))
        kept = {path: value for path, value in fields.items()
                if not names or any(path == name or path.startswith(f"{name}.") for name in names)}  # fmt: skip
        if not kept:
            raise ValueError(f"the row's own answer has none of the fields {', '.join(names) or 'of an object'}")
        got = dict(_fields(_object_in(answer) or {}))
        return sum(path in got and _same(got[path], value) for path, value in kept.items()) / len(kept)

    return score


def _same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; true is no number."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _object_in(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text, whatever stands around it; None where there is none."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at = text.find("{", at + 1)
            continue
        return found if isinstance(found, dict) else None
    return None


def _fields(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of an object by dotted path: a field that holds an object stands for those within it."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _rouge_l(prompt: str, reference: str, answer: str) -> float:
    wanted, got = (re.findall(r"\w+", text.lower()) for text in (reference, answer))
    return _f1(_longest_common(wanted, got), len(wanted), len(got))


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, beside in enumerate(other, 1):
            before, row[at] = row[at], before + 1 if word == beside else max(row[at], row[at - 1])
    return row[-1]


def _token_f1(prompt: str, reference: str, answer: str) -> float:
    wanted, got = _squad_words(reference), _squad_words(answer)
    if not wanted or not got:
        return float(wanted == got)
    return _f1(sum((Counter(wanted) & Counter(got)).values()), len(wanted), len(got))


def _squad_words(text: str) -> list[str]:
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _f1(common: int, wanted: int, got: int) -> float:
    return 2 * common / (wanted + got) if common else 0.0


@cache
def _chrf() -> Score:
    from sacrebleu.metrics import CHRF

    measure = CHRF()

    def score(prompt: str, reference: str, answer: str) -> float:
        return float(measure.sentence_score(answer, [reference]).score) / 100

    return score


def _plain(function: Score) -> Callable[[str], Score]:
    return lambda text: function


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact_match", "1 where the answer is the row's own, spaces aside", _plain(_exact_match)),
        Metric("contains", "1 where the answer contains the row's own, spaces aside", _plain(_contains)),
        Metric("regex", "1 where the last match in the answer is that in the row's own", _regex,
               takes="a pattern, whose first group is compared"),
        Metric("json_fields", "the share of the row's fields that the answer's JSON has with the same value",
               _json_fields, takes="names of fields with commas between them"),
        Metric("rouge_l", "ROUGE-L: F1 of the longest common subsequence of words", _plain(_rouge_l)),
        Metric("chrf", "chrF of sacrebleu by 100: F of n-grams of characters", lambda text: _chrf()),
        Metric("token_f1", "F1 of the words, as SQuAD counts them", _plain(_token_f1)),
    )
}  # fmt: skip
"""Every metric that needs no code of the user's, by name. Each lies between 0 and 1."""
