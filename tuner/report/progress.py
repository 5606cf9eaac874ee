"""How far a search is and how long it will take, from its record alone."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.results.records import SearchRecord, TrialRecord

MINIMUM_WORK = 0.15
"""Whole trials' worth of work before time is estimated: set-up dominates what was seen until then."""


MINIMUM_ENDED = 3
"""Trials that have ended before time is estimated while others wait: with none, each counts as a whole budget, and the
estimate of a search that prunes is three to five times too long."""


@dataclass(frozen=True)
class Progress:
    """share: of the expected work, in [0, 1]. left: seconds to the end, None where too little was seen."""

    share: float
    left: float | None


def estimate(record: SearchRecord, elapsed: float) -> Progress:
    """Progress counted in whole trials' worth of work, over `elapsed` seconds.

    How much of its budget a trial will use before it is stopped is read from the trials so far by the Kaplan-Meier
    estimate: the early endings are the pruned ones, so a plain mean over what has ended says far too little while
    the good trials are still running.
    """
    trials = list(record.trials.values())
    survival = _survival(trials)
    done = sum(_share(t) for t in trials)
    waiting = max(0, record.num_trials - len(trials)) + sum(t.interrupted for t in trials)
    ahead = waiting * _expected_rest(survival, 0.0)
    ahead += sum(_expected_rest(survival, _share(t)) for t in trials if t.is_running)
    if ahead == 0:
        return Progress(1.0 if trials else 0.0, None)
    known = done >= MINIMUM_WORK and (record.num_ended >= MINIMUM_ENDED or not waiting)
    left = ahead * elapsed / done if known and elapsed > 0 and not record.finished else None
    return Progress(done / (done + ahead), left)


def _share(trial: TrialRecord) -> float:
    """How much of its whole budget a trial has used, by steps."""
    return min(1.0, trial.step / trial.max_steps) if trial.max_steps else 0.0


def _survival(trials: list[TrialRecord]) -> list[tuple[float, float]]:
    """Kaplan-Meier: (share of the budget, probability that a trial gets further), ascending."""
    seen = sorted((_share(t), t.has_ended and _share(t) < 1.0) for t in trials)
    probability, steps = 1.0, []
    for index, (share, ended_here) in enumerate(seen):
        if ended_here:
            probability *= 1 - 1 / (len(seen) - index)
            steps.append((share, probability))
    return steps


def _expected_rest(survival: list[tuple[float, float]], start: float) -> float:
    """Expected further share of the budget of a trial that has come to `start`: the area under the survival curve."""
    here = next((p for share, p in reversed(survival) if share <= start), 1.0)
    area, x, level = 0.0, start, here
    for share, probability in survival:
        if share > start:
            area += (share - x) * level
            x, level = share, probability
    return (area + (1.0 - x) * level) / here if here > 0 else 0.0
