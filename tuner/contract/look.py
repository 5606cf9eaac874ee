"""What a program shows of its rows before anything runs: plain data, which `tuner data` draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tuner.contract.telling import Tell, silent

Kind = Literal["refused", "left out", "cut", "told"]
"""What becomes of the rows of a finding: a search refuses them, leaves them out, cuts them, or takes them as they
are."""


@dataclass(frozen=True)
class LookRequest:
    """How much a person wants to see."""

    show: int = 3
    """Rows to show in full."""
    row: int | None = None
    """The number, in its file, of the one row to show; None: `show` rows."""
    whole: bool = False
    """Whether all rows are tokenized, and not a sample of many."""
    only_here: bool = False
    """Whether to look only where all files are on this machine."""
    foreign_code: bool = False
    """Whether code may run that comes with a tokenizer."""
    tell: Tell = silent
    """Gets how far the look is."""


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens of a row with one fate, decoded."""

    text: str
    """What they decode to; where `hidden` is not 0, the beginning of it."""
    learned: bool
    """Whether they have labels: the loss counts them, but for the first token of a row."""
    beyond: bool = False
    """Whether they lie beyond the longest length, and are cut off."""
    hidden: int = 0
    """Tokens in the middle that are not shown."""
    tail: str = ""
    """What follows the hidden tokens."""


@dataclass(frozen=True)
class ShownRow:
    """A row as the model sees it."""

    place: str
    """Where it is in the file, counted from 1: "line 17" of a text file, else "row 17"."""
    tokens: int
    """Its tokens, those beyond the longest length included."""
    learned: int
    """Those that are learned, beyond the longest length too."""
    pieces: tuple[Piece, ...]
    """All its tokens, in order."""
    fate: str = ""
    """What becomes of it, in words, where it is not learned whole ("left out: ..."); else ""."""
    pictures: tuple[str, ...] = ()
    """Its images, small, as data URIs of JPEG or PNG."""


@dataclass(frozen=True)
class Finding:
    """Something that is true of several rows."""

    kind: Kind
    """What becomes of them."""
    what: str
    """It, in words that follow a number of rows ("equal to an earlier row")."""
    count: int
    """How many rows."""
    examples: tuple[str, ...] = ()
    """Some of the rows, each with what is to be said of it ("line 17, as line 3")."""
    remedy: str = ""
    """What the user can do about it; "" for nothing."""


@dataclass(frozen=True)
class AtLength:
    """What would become of the rows with another longest length."""

    length: int
    """The longest length, in tokens."""
    cut: int
    """Rows longer than that."""
    left_out: int
    """Rows without a token to learn within it."""
    lost: int
    """Learned tokens beyond it."""


@dataclass(frozen=True)
class Bin:
    """A bar of the histogram of lengths."""

    low: int
    """The shortest length in it, in tokens."""
    high: int | None
    """The longest length in it; None for the last bar, where the lengths are far apart."""
    rows: int


@dataclass(frozen=True)
class RowSet:
    """The rows of one set."""

    name: str
    """"train" or "validation", say."""
    source: str
    """The file, folder or hub id that they are from."""
    rows: int
    """How many there are."""
    looked: int
    """How many of them were tokenized: all figures below are of these."""
    tokens: int
    learned: int
    """Tokens that the loss counts, before rows are cut."""
    unknown: int | None
    """Tokens that stand for what the tokenizer cannot write; None where it has no such token."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Tokens of the shortest row, of the one at the median, at 90% and at 99%, and of the longest."""
    histogram: tuple[Bin, ...] = ()
    at: tuple[AtLength, ...] = ()
    """By longest length, ascending."""
    findings: tuple[Finding, ...] = ()
    shown: tuple[ShownRow, ...] = ()
    sampled: str = ""
    """Which rows were tokenized, in words; "" for all."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """More that is to be said of them, by a short label."""


@dataclass(frozen=True)
class Look:
    """The rows of a search as the model sees them."""

    facts: Mapping[str, str]
    """What holds for all rows, by a short label ("format", "learns")."""
    tokenizer: str
    """The folder or hub id of the tokenizer."""
    limit: int
    """The longest length of a row, in tokens; longer ones are cut."""
    limit_name: str
    """The setting that has it."""
    sets: tuple[RowSet, ...]
    findings: tuple[Finding, ...] = ()
    """What is true of several sets, such as rows that two of them share."""
    refusal: Mapping[str, str] | None = None
    """The first error that a search would end with, as `InputError.to_dict` has it; None where it would run."""
