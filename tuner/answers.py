"""What a probe found: yes, no, or that it could not be found out, and why.

A probe that fails has found nothing. Who asks decides what to do then, and says so: a failure is never taken for an
answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Yes:
    """It is so."""


@dataclass(frozen=True)
class No:
    """It is not so. why: what says it, as far as that helps."""

    why: str = ""


@dataclass(frozen=True)
class Unknown:
    """It could not be found out. why: what came in between, for people."""

    why: str


Answer = Yes | No | Unknown
