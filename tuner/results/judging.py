"""Asks a judge which of two answers is better, in both orders: many judges prefer what they see first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.contract import Scored, Scores, Tell, silent
from tuner.results.own_functions import OwnFunction


@dataclass(frozen=True)
class Judged:
    """What a judge said of the answers of two candidates."""

    judge: str
    """Its name."""
    one: str
    """The candidate that is judged."""
    other: str
    """The one that it is judged beside."""
    verdicts: list[float | None]
    """Of each row: 1 where the first candidate's answer is better in both orders, -1 where the other's is, 0 where the
    two are equal, or the order decides; None where the judge was not asked."""
    swayed: int = 0
    """Rows in which the order decided: the same place was preferred both times, or one time only."""
    failed: str = ""
    """Why the judge was asked no further; "" where it answered everything."""

    @property
    def asked(self) -> int:
        """Rows that it has judged."""
        return sum(verdict is not None for verdict in self.verdicts)


def pair(scored: Scored) -> tuple[Scores, Scores]:
    """The two candidates that are compared first: the last one, and the one before it."""
    return scored.candidates[-1], scored.candidates[-2]


def judge(function: OwnFunction, scored: Scored, tell: Tell = silent) -> Judged:
    """Asks about each row that has answers. A judge that fails is asked no further."""
    one, other = pair(scored)
    verdicts: list[float | None] = []
    swayed, failed = 0, ""
    places = [at for at, row in enumerate(scored.rows) if row.answered]
    for at, row in enumerate(scored.rows):
        left, right = (one.answers[at], other.answers[at]) if row.answered else (None, None)
        if failed or left is None or right is None:
            verdicts.append(None)
            continue
        tell(f"judging: {len([v for v in verdicts if v is not None])} of {len(places)}")
        signs = []
        for answers, sign in (((left, right), 1), ((right, left), -1)):
            value, why = function.call(row.prompt, row.reference, *answers)
            if not why and not (isinstance(value, bool | int | float) and math.isfinite(value)):
                why = f"gave {value!r:.60}, and not a number"
            if why:
                failed = f"at {row.where}: {why}"
                break
            signs.append(sign * ((value > 0) - (value < 0)))
        if failed:
            verdicts.append(None)
            continue
        agreed = signs[0] == signs[1]
        swayed += not agreed
        verdicts.append(float(signs[0]) if agreed else 0.0)
    function.close()
    tell("")
    return Judged(function.name, one.name, other.name, verdicts, swayed, failed)
