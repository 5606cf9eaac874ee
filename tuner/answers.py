"""The answer of a probe: yes, no, or unknown, each with the reason.

A probe that fails answers Unknown, and the caller decides what to do then: a failure is never taken for yes or no.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Yes:
    """It is so."""


@dataclass(frozen=True)
class No:
    """It is not so. why: what showed that, where it helps to know."""

    why: str = ""


@dataclass(frozen=True)
class Unknown:
    """It could not be found out. why: what went wrong, in words for the user."""

    why: str


Answer = Yes | No | Unknown
