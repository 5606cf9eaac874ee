"""Estimates how far a search is and how long it will take, from its record alone."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.results.records import SearchRecord, TrialRecord

MINIMUM_WORK = 0.15
"""Time is estimated once this much work is done, in full budgets of a trial; before that most of the time is set-up."""


MINIMUM_ENDED = 3
"""While trials wait, time is estimated once so many have ended. With none ended, each counts as a full budget, and the
estimate of a search that prunes is three to five times too long."""


@dataclass(frozen=True)
class Progress:
    """How far a search is."""

    share: float
    """Share of the expected work that is done, in [0, 1]."""
    left: float | None
    """Seconds to the end; None if too little was seen to say."""


def estimate(record: SearchRecord, elapsed: float) -> Progress:
    """The progress of a search after `elapsed` seconds. Work is counted in full budgets of a trial.

    The Kaplan-Meier estimate over the trials so far says how much of its budget a trial will use before it is stopped.
    The trials that end early are the pruned ones, so a plain mean over ended trials is far too low while the good ones
    run.
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
    """The share of its budget that a trial has used, by steps."""
    return min(1.0, trial.step / trial.max_steps) if trial.max_steps else 0.0


def _survival(trials: list[TrialRecord]) -> list[tuple[float, float]]:
    """Kaplan-Meier: (share of the budget, probability that a trial gets further), by ascending share."""
    seen = sorted((_share(t), t.has_ended and _share(t) < 1.0) for t in trials)
    probability, survival = 1.0, []
    for index, (share, ended_here) in enumerate(seen):
        if ended_here:
            probability *= 1 - 1 / (len(seen) - index)
            survival.append((share, probability))
    return survival


def _expected_rest(survival: list[tuple[float, float]], start: float) -> float:
    """The share of the budget that a trial at share `start` is expected to use yet: the area under the survival curve
    from there, over its value there."""
    here = next((p for share, p in reversed(survival) if share <= start), 1.0)
    area, x, level = 0.0, start, here
    for share, probability in survival:
        if share > start:
            area += (share - x) * level
            x, level = share, probability
    return (area + (1.0 - x) * level) / here if here > 0 else 0.0
