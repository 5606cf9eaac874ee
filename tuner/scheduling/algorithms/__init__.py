"""Algorithms, which decide after each evaluation what becomes of a trial. No Ray in here.

base.py  what an algorithm is
asha.py  asynchronous successive halving that stops
none.py  no comparison, the rules alone

To add one, write its file with a `Registered`, name that in ALGORITHMS, and give it a section of settings in
`tuner.config.sections`.
"""

from __future__ import annotations

from typing import Any

from tuner.contract import Objective
from tuner.scheduling.algorithms import asha, none
from tuner.scheduling.algorithms.base import (
    CONTINUE,
    PAUSE,
    Algorithm,
    AlgorithmContext,
    Candidate,
    Decision,
    Registered,
    stop,
)
from tuner.scheduling.ladder import Ladder
from tuner.scheduling.rules import make_rules

__all__ = [
    "ALGORITHMS",
    "CONTINUE",
    "PAUSE",
    "Algorithm",
    "AlgorithmContext",
    "Candidate",
    "Decision",
    "Registered",
    "make_algorithm",
    "registered",
    "stop",
]

ALGORITHMS: dict[str, Registered] = {"asha": asha.REGISTERED, "none": none.REGISTERED}
"""By `scheduler.kind`."""


def registered(settings: Any) -> Registered:
    """The algorithm that `scheduler` settings name."""
    return ALGORITHMS[settings.kind]


def make_algorithm(settings: Any, ladder: Ladder, objective: Objective) -> Algorithm:
    """Makes the algorithm that `scheduler` settings name, with their rules, for the rungs of `ladder`."""
    before, after = make_rules(settings, ladder.max_t, objective)
    return registered(settings).build(settings, ladder, AlgorithmContext(objective, ladder.max_t, before, after))
