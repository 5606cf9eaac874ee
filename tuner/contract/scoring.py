"""What a program is asked to score, adapters side by side on rows that no trial learned from, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODEL = ""
"""The adapter of a candidate that is none: what the trials began with, or a whole model."""


@dataclass(frozen=True)
class ScoreRequest:
    """Rows, and what is to be scored on them."""

    rows: str
    """Rows that are scored: a file, a folder, a hub id; as the program's settings take them."""
    candidates: Mapping[str, str]
    """By the name that is shown: the folder of an adapter, or MODEL."""
    metrics: tuple[str, ...] = ()
    """The program's own metrics of an answer, `name` or `name:text`."""
    answers: bool = True
    """Whether answers are generated."""
    most_answers: int = 200
    """Rows that an answer is generated for, at most: the same ones for every candidate, drawn from `seed`."""
    most_tokens: int | None = None
    """Tokens of an answer, at most; None: by the rows' own answers."""
    most_rows: int | None = None
    """Rows that are scored, at most, drawn from `seed`; None: all."""
    split: str = "train"
    """Which split of `rows`, where they have some."""
    also: str = ""
    """Other rows whose loss alone is measured; "" for none."""
    seed: int = 0
    format: str = ""
    """The format of the rows that the trials learned from, by the program's name for it; "" where it is not known."""
    source: str = ""
    """Without settings: a model, or the folder of an adapter, that says what its base is."""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    """With `source`: the fingerprints of what the adapter was trained on, in the form of `made_of` in the facts of
    `prepare`; empty where they are not known."""

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> ScoreRequest:
        """Reads `dataclasses.asdict` of one after it was JSON."""
        return cls(**{**given, "metrics": tuple(given["metrics"])})


@dataclass(frozen=True)
class ScoredRow:
    """A row that was scored."""

    where: str
    """Its place ("test.jsonl:3")."""
    targets: int
    """Tokens that its loss is summed over."""
    prompt: str = ""
    reference: str = ""
    """Its own answer; with `prompt`, "" where no answer was generated for it."""
    answered: bool = False
    """Whether an answer was generated for it."""


@dataclass(frozen=True)
class Scores:
    """What was found of one candidate. All lists are by row, as `Scored.rows` has them."""

    name: str
    losses: list[float]
    """The negative log-likelihood of each row in nats, summed over its targets."""
    answers: list[str | None] = field(default_factory=list)
    """The answer to each row; None where none was generated."""
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    """By metric: each row's value; None where none was generated."""
    missing: dict[str, str] = field(default_factory=dict)
    """By metric that has no values: why."""
    also: list[float] = field(default_factory=list)
    """As `losses`, of the other rows."""
    cut: int = 0
    """Answers that reached the limit of tokens."""
    tokens: int = 0
    """Tokens that were generated."""
    seconds: float = 0.0
    """Seconds that generating took."""
    harness: str = ""
    """What lm-evaluation-harness takes as `--model_args` for it."""


@dataclass(frozen=True)
class Scored:
    """What was found of all candidates on the same rows."""

    rows: list[ScoredRow]
    candidates: list[Scores]
    directions: dict[str, str] = field(default_factory=dict)
    """By metric: "minimize" or "maximize"."""
    also: list[int] = field(default_factory=list)
    """Of each of the other rows: tokens that its loss is summed over."""
    most_tokens: int = 0
    """Tokens that an answer could have."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user."""
