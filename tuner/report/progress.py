"""Estimates how far a search is and how long it will take, from its record alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tuner.results.records import SearchRecord, TrialRecord

STOPPED_EARLY = ((0.1, 0.7), (1.0, 0.3))
"""What is expected of a trial before any has ended: (share of the budget, weight), together one trial. Seven of ten are
stopped at a tenth of the budget and three use all of it, 37% in the mean; searches of 16 trials spent 31 to 42%.
Without it, a first trial that ends without a step would promise that all others do."""

SPREAD = 1.28
"""Standard deviations on each side of an estimate: 8 of 10 searches end between them."""

DRIFT = 0.12
"""The relative standard deviation of what no trial shows: a machine that gets busy, the pauses between two trials."""

UNLIKE = 0.4
"""The relative standard deviation of the paces of trials, until two of them have trained: a configuration with a large
rank or a small batch takes longer."""


@dataclass(frozen=True)
class Left:
    """The time to the end of a search, in seconds."""

    least: float
    likely: float
    most: float


@dataclass(frozen=True)
class Progress:
    """How far a search is. Work is counted in full budgets of a trial."""

    share: float
    """Share of the expected work of all planned trials that is done, in [0, 1]."""
    done: float
    """The work that is done."""
    expected: float
    """The work of all planned trials: what is done and what is expected yet."""
    left: Left | None
    """The time to the end; None before the first evaluation."""


@dataclass(frozen=True)
class _Guess:
    """Some work that lies ahead."""

    mean: float
    variance: float


def estimate(record: SearchRecord, elapsed: float) -> Progress:
    """The progress of a search after `elapsed` seconds.

    The Kaplan-Meier estimate over the trials so far says how much of its budget a trial will use before it is stopped.
    The trials that end early are the pruned ones, so a plain mean over ended trials is far too low while the good ones
    run.
    """
    trials = list(record.trials.values())
    shares = [_share(t) for t in trials]
    survival = _survival(trials, shares, alone=record.num_trials == 1)
    done = sum(shares)
    waiting = max(0, record.num_trials - len(trials)) + sum(t.interrupted for t in trials)
    running = [t for t in trials if t.is_running]
    new = _rest(survival, 0.0)
    rests = [_rest(survival, _share(t)) for t in running]
    ahead = waiting * new.mean + sum(rest.mean for rest in rests)
    if ahead == 0:
        return Progress(1.0 if trials else 0.0, done, done, None)
    # What one trial will use is uncertain, and so is the mean that is expected of all that wait.
    ended = sum(t.has_ended for t in trials)
    variance = (waiting + waiting**2 / (1 + ended)) * new.variance + sum(rest.variance for rest in rests)
    work = _Guess(ahead, variance)
    left = None if record.finished else _left(record, trials, waiting, len(running), work)
    return Progress(done / (done + ahead), done, done + ahead, left)


def _left(
    record: SearchRecord, trials: Sequence[TrialRecord], waiting: int, num_running: int, work: _Guess
) -> Left | None:
    """The time that the work ahead takes: at the pace of the trials so far, as many at a time as run."""
    trained = [(seconds, share) for seconds, share in map(_trained, trials) if seconds and share]
    if not trained:
        return None
    pace = sum(seconds for seconds, _ in trained) / sum(share for _, share in trained)
    paces = [seconds / share for seconds, share in trained]
    spread = UNLIKE
    if len(paces) > 1:
        mean = sum(paces) / len(paces)
        spread = math.sqrt(sum((p - mean) ** 2 for p in paces) / (len(paces) - 1)) / mean
    at_once = min(
        num_running + waiting, max(1.0, num_running, record.trial_s / record.busy_s if record.busy_s else 0.0)
    )
    begins = [t.set_up - t.started for t in trials if t.set_up and t.started]
    again = begins[math.ceil(at_once) :]  # the first trial of a worker waits for its imports and its base
    begin = median(again[-9:] or begins)
    likely = (work.mean * pace + waiting * (begin if again else begin / 4)) / at_once
    if waiting or num_running > 1:  # at the end, workers are idle while the last trial runs
        likely += (1 - 1 / at_once) * pace * work.mean / (waiting + num_running) / 2
    doubt = SPREAD * math.sqrt(work.variance / work.mean**2 + spread**2 / len(paces) + DRIFT**2)
    most = likely * (1 + doubt) + (0.0 if again else waiting * begin * 0.75 / at_once)
    return Left(likely / (1 + doubt), likely, most)


def _share(trial: TrialRecord) -> float:
    """The share of its budget that a trial has used, by steps."""
    steps = trial.max_steps
    return min(1.0, trial.step / steps) if steps else 0.0


def _trained(trial: TrialRecord) -> tuple[float, float]:
    """The seconds that a trial's last attempt has trained, and the share of its budget that it has used in them."""
    seconds = trial.trained_s
    if not seconds or not trial.max_steps:
        return 0.0, 0.0
    return seconds, max(0.0, _share(trial) - (trial.setup.get("resumed_step") or 0) / trial.max_steps)


def _survival(trials: Sequence[TrialRecord], shares: Sequence[float], alone: bool) -> list[tuple[float, float]]:
    """Kaplan-Meier: (share of the budget, probability that a trial gets further), by ascending share.

    alone: whether there is one trial only, which is compared with none.
    """
    seen = [(share, 1.0, share < 1.0 and t.has_ended) for t, share in zip(trials, shares, strict=True)]
    seen += [(share, weight, share < 1.0) for share, weight in STOPPED_EARLY if not alone]
    seen.sort()
    at_risk, probability, survival = sum(weight for _, weight, _ in seen), 1.0, []
    for share, weight, ended_here in seen:
        if ended_here:
            probability *= 1 - weight / at_risk
            survival.append((share, probability))
        at_risk -= weight
    return survival


def _rest(survival: Sequence[tuple[float, float]], start: float) -> _Guess:
    """The share of the budget that a trial at share `start` is expected to use yet: the area under the survival curve
    from there, over its value there."""
    here = next((p for share, p in reversed(survival) if share <= start), 1.0)
    if here <= 0:
        return _Guess(0.0, 0.0)
    area, squares, x, level = 0.0, 0.0, start, here
    for share, probability in [*survival, (1.0, 0.0)]:
        if share > start:
            area += (share - x) * level
            squares += ((share - start) ** 2 - (x - start) ** 2) * level
            x, level = share, probability
    mean = area / here
    return _Guess(mean, max(0.0, squares / here - mean**2))
