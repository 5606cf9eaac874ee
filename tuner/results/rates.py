"""What trials took in a search that ran, by which another one on the same machine is foreseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from tuner.results.records import SearchRecord
from tuner.results.trial import TrialRecord

LONGEST_GAP_S = 2.0
"""A worker that took longer than this from one trial to the next waited for something else."""


@dataclass(frozen=True)
class Rates:
    """What the trials of a search took."""

    source: str
    """Whose they are, in words."""
    workers: int
    """Workers of the search."""
    at_once: int
    """Trials at a time."""
    gpus: float
    """GPUs that all workers held."""
    start_s: float
    """Seconds from the start, once Ray ran, to the first step of the first trial."""
    begin_s: float
    """Seconds from a trial's end to the first step of the next one on the same worker."""
    step_s: float
    """Seconds of an optimizer step, beside as many other trials."""
    evaluation_s: float
    """Seconds of an evaluation."""
    end_s: float
    """Seconds from the last trial's end to the search's."""
    step_tokens: float
    """Training tokens of a step of the trials that were measured."""
    tokens: tuple[float, ...]
    """Training tokens of whole trials, the recipe's first."""
    steps: float
    """Steps of a whole trial."""


def rates_of(record: SearchRecord, source: str) -> Rates | None:
    """The rates of a search; None where no trial was measured three times."""
    trials = [t for t in record.trials.values() if len(t.points) >= 3 and t.set_up and t.started and t.max_steps]
    at_once = _at_once(record)
    warm = [t for t in trials if t.number >= at_once] or trials  # a worker's first trial has slow first calls
    stretches = [one for trial in warm for one in _stretches(trial)]
    if not stretches or record.started is None:
        return None
    step_s, evaluation_s = _line(stretches)
    steps = sum(count for count, _, _ in stretches)
    first = min(trials, key=lambda t: t.number)
    others = [t.full_tokens for t in trials if t is not first]
    ended = [t.ended for t in record.ended if t.ended is not None]
    return Rates(
        source=source,
        workers=max(1, record.workers),
        at_once=at_once,
        gpus=record.workers * record.gpus,
        start_s=min(t.set_up for t in trials if t.set_up) - record.started + _extra(first, step_s, evaluation_s),
        begin_s=_begin(record, at_once, step_s, evaluation_s),
        step_s=step_s,
        evaluation_s=evaluation_s,
        end_s=max(0.0, (record.updated or 0.0) - max(ended)) if ended and record.finished else 0.0,
        step_tokens=sum(tokens for _, _, tokens in stretches) / steps,
        tokens=(first.full_tokens, *others),
        steps=fmean(t.max_steps or 0 for t in trials),
    )


def _stretches(trial: TrialRecord) -> list[tuple[int, float, int]]:
    """Steps, seconds and tokens between two evaluations of its last attempt; the first one is left out."""
    points = [p for p in trial.points if p.step > (trial.setup.get("resumed_step") or 0)]
    return [
        (b.step - a.step, b.seconds - a.seconds, b.tokens - a.tokens) for a, b in pairwise(points) if b.step > a.step
    ]


def _line(stretches: Sequence[tuple[int, float, int]]) -> tuple[float, float]:
    """The seconds of a step and of an evaluation that fit best; where all stretches have the same length, the
    evaluation's are in the step's."""
    steps, seconds = [float(one[0]) for one in stretches], [one[1] for one in stretches]
    mean_steps, mean_s = fmean(steps), fmean(seconds)
    spread = sum((one - mean_steps) ** 2 for one in steps)
    alone = mean_s / mean_steps
    if not spread:
        return alone, 0.0
    slope = sum((n - mean_steps) * (s - mean_s) for n, s in zip(steps, seconds, strict=True)) / spread
    slope = min(max(slope, 0.0), alone)
    return slope, mean_s - slope * mean_steps


def _at_once(record: SearchRecord) -> int:
    """How many trials ran at a time."""
    marks = sorted(
        mark
        for trial in record.trials.values()
        if trial.started is not None
        for mark in ((trial.started, 1), (trial.ended or record.updated or trial.started, -1))
    )
    now = most = 0
    for _, change in marks:
        now += change
        most = max(most, now)
    return max(1, most)


def _extra(trial: TrialRecord, step_s: float, evaluation_s: float) -> float:
    """Seconds from its set-up to its first evaluation that are neither steps nor the evaluation: first calls."""
    points, heard, set_up = trial.points, trial.heard, trial.set_up
    if heard is None or set_up is None:
        return 0.0
    first_at = heard - (points[-1].seconds - points[0].seconds)
    return max(0.0, first_at - set_up - step_s * points[0].step - evaluation_s)


def _begin(record: SearchRecord, at_once: int, step_s: float, evaluation_s: float) -> float:
    """Seconds between two trials of a worker, in the middle; 0 where no worker had two."""
    endings = sorted(t.ended for t in record.ended if t.ended is not None)
    found = []
    for trial in record.trials.values():
        if trial.number < at_once or trial.attempt > 1 or not trial.points or not trial.started or not trial.set_up:
            continue
        before = max((end for end in endings if end <= trial.started), default=trial.started)
        gap = min(trial.started - before, LONGEST_GAP_S)
        found.append(gap + trial.set_up - trial.started + _extra(trial, step_s, evaluation_s))
    return median(found) if found else 0.0
