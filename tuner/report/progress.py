"""Estimates how far a search is and how long it will take, from its record alone."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tuner.results.records import SearchRecord, TrialRecord

RUNG, PASSED = 0.1, 0.3
"""What is assumed of a search whose ledger does not say where its rungs are: three of ten trials get past a tenth of
the budget; searches of 16 trials spent 31 to 42%."""
WEIGHT = 3.0
"""How many trials the expectation at a rung counts for, which is that one of `reduction_factor` goes on. Elsewhere it
is that all go on, and counts for one."""
EVERY = 0.1
"""The share of the budget between two evaluations, where the ledger does not say it."""
RECENT, MOST_RECENT = 32, 1000
"""Trials whose times are used, the last third of them, at least and at most so many: a machine gets busier, and
a sampler slower."""
SPREAD = 1.28
"""Standard deviations on each side of an estimate: 8 of 10 moments lie between them."""
DRIFT = 0.25
"""The relative standard deviation of what no trial shows: a machine that gets busy, the pauses between two trials."""
UNLIKE = 0.5
"""The relative standard deviation of the paces of trials: a configuration with a large rank takes longer."""
COLD = 0.6
"""The relative standard deviation of what the first trial of a worker says of later ones: it waits for imports, the
base and first calls."""
ENDS_S = 0.8
"""Seconds from the last ending to the end of the search, 0.1 to 3.6 on ten searches; the range has three times that."""


@dataclass(frozen=True)
class Left:
    """The time to the end of a search, in seconds; the end lies in the range at 8 of 10 moments."""

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


def estimate(record: SearchRecord, elapsed: float) -> Progress:
    """The progress of a search after `elapsed` seconds.

    A trial goes from place to place, where it is evaluated and may be stopped. How often trials are stopped at each
    place says how far the others will get: the trials that end early are the pruned ones, so a plain mean over ended
    trials is far too low while the good ones run.
    """
    trials = list(record.trials.values())
    road = _Road(record)
    done = sum(_share(t) for t in trials)
    waiting = max(0, record.num_trials - len(trials)) + sum(t.interrupted for t in trials)
    running = [t for t in trials if t.is_running]
    ahead = road.ahead([to - at for at, to in zip((0.0, *road.places), road.places, strict=False)])
    rest = waiting * (1 - road.stops[0]) * ahead[0].mean
    rest += sum(ahead[road.reached(t)].mean - _over(road, t) for t in running)
    if rest <= 0:
        return Progress(1.0 if trials else 0.0, done, done, None)
    left = None if record.finished else _Clock(record, elapsed, road, running).left(waiting)
    return Progress(done / (done + rest), done, done + rest, left)


@dataclass(frozen=True)
class _Guess:
    """Something that lies ahead."""

    mean: float
    variance: float


class _Road:
    """The places at which trials are evaluated, as shares of the budget, and how many trials are stopped at each."""

    def __init__(self, record: SearchRecord) -> None:
        trials = list(record.trials.values())
        self.places = _shares(record.ladder.get("evaluate_at")) or _seen(trials)
        rungs, passed = _rungs(record)
        at_rung = {min(range(len(self.places)), key=lambda i: abs(self.places[i] - rung)) + 1 for rung in rungs}
        last = len(self.places)
        came, ended = [0] * (last + 1), [0] * (last + 1)
        for trial in trials:
            at = self.reached(trial)
            came[at] += 1
            ended[at] += trial.has_ended or trial.parked
        self.stops = [1.0] * (last + 1)
        """The share of the trials that are stopped at a place which they come to; first, before the first place."""
        for at in range(last - 1, -1, -1):
            came[at] += came[at + 1]
            if at in at_rung:  # the first trial at a rung always goes on, and says nothing of the others
                self.stops[at] = (ended[at] + WEIGHT * (1 - passed)) / (max(came[at] - 1, ended[at]) + WEIGHT)
            else:
                self.stops[at] = ended[at] / (came[at] + 1)

    def reached(self, trial: TrialRecord) -> int:
        """How many places a trial has passed."""
        return self.place_of(trial, trial.step)

    def place_of(self, trial: TrialRecord, step: int) -> int:
        """How many places a trial has passed at a step."""
        steps = trial.max_steps
        return bisect_left(self.places, (step + 0.5) / steps) if steps and step else 0

    def ahead(self, costs: Sequence[float]) -> list[_Guess]:
        """What a trial is expected to cost yet, by the number of places that it has passed. costs: of the way to each
        place from the one before."""
        mean = square = 0.0
        found = [_Guess(0.0, 0.0)]
        for at in range(len(costs) - 1, -1, -1):
            cost, on = costs[at], 1 - self.stops[at + 1]
            square = cost**2 + 2 * cost * on * mean + on * square
            mean = cost + on * mean
            found.append(_Guess(mean, max(0.0, square - mean**2)))
        return found[::-1]


class _Clock:
    """What trials of a search take, in seconds."""

    def __init__(self, record: SearchRecord, elapsed: float, road: _Road, running: Sequence[TrialRecord]) -> None:
        self._road, self._running = road, running
        self._now = (record.updated or 0.0) + max(0.0, elapsed - record.wall_s)
        self._slots = max(1.0, len(running), record.trial_s / record.busy_s if record.busy_s else 0.0)
        trials = list(record.trials.values())
        self._begun = [t for t in trials if t.set_up is not None]
        self._ended = sum(t.has_ended for t in trials)
        begins = [max(0.0, (t.set_up or 0.0) - (t.started or 0.0)) for t in self._begun]
        again = begins[math.ceil(self._slots) :]
        self._warm = bool(again)
        """Whether a worker has had its second trial."""
        self._legs, self._measured = self._times()
        each = sum(self._legs) / max(1, len(self._legs))
        self._begin = median(again[-9:]) if again else min(median(begins or [0.0]) / 4, 2 * each)
        """Seconds from the start of a trial to its set-up."""

    def left(self, waiting: int) -> Left | None:
        """The time to the end. waiting: trials that have not begun."""
        if not any(self._legs):
            return None
        ahead, stays = self._road.ahead(self._legs), 1 - self._road.stops[0]
        begins, first = self._begin, ahead[0]
        mean = begins + stays * first.mean
        variance = stays * (first.variance + first.mean**2) - (stays * first.mean) ** 2
        seconds = waiting * mean
        # What one trial will take is uncertain, and so is the mean that is expected of all that wait.
        doubt = (waiting + waiting**2 / (WEIGHT + self._ended)) * variance
        last: list[tuple[int, float]] = [(0, 1.0)] * min(waiting, math.ceil(self._slots))
        """The trials that will run last: the places that each will have passed by then, and how slow it is."""
        for trial in self._running:
            at = self._road.reached(trial)
            if trial.set_up is None or at >= len(self._legs):
                seconds, doubt = seconds + mean, doubt + variance
                continue
            slow = self._slow(trial)
            since = self._now - max(trial.set_up, trial.heard or 0.0)
            rest = slow * ahead[at].mean - min(max(0.0, since), 0.9 * slow * self._legs[at])
            seconds, doubt = seconds + rest, doubt + slow**2 * ahead[at].variance
            last += [(at, slow)] if not waiting else []
        seconds, trials = max(seconds, 1e-6), waiting + len(self._running)
        at_once = min(trials, self._slots)
        pace = self._at_a_time() * min(1.0, trials / self._slots)
        likely = seconds / pace
        likely += (1 - 1 / at_once) * seconds / trials * at_once / pace / 2  # workers are idle while the last one runs
        before = seconds - sum(ahead[at].mean * slow for at, slow in last)
        unlike = UNLIKE**2 * (1 / (1 + self._measured / 4) + 1 / (1 + 4 * trials))
        drift = DRIFT**2 * (1 + 3 / len(self._begun))
        doubts = math.log1p(doubt / seconds**2 + unlike + drift)
        spread = SPREAD * math.sqrt(doubts)
        likely *= math.exp(-doubts / 2)  # from the mean to the middle: a few trials that take long are far from it
        likely = max(likely, max(0.0, before) / pace + self._longest(last))
        early = spread if self._warm else spread + SPREAD * COLD
        return Left(likely * math.exp(-early), likely + ENDS_S, likely * math.exp(spread) + 3 * ENDS_S)

    def _longest(self, trials: Sequence[tuple[int, float]]) -> float:
        """The expected seconds of the one that takes longest. trials: of each, the places passed and how slow it is."""
        seconds, goes = 0.0, [1.0] * len(trials)
        for at, leg in enumerate(self._legs):
            none, slowest = 1.0, 1.0
            for i, (passed, slow) in enumerate(trials):
                if at < passed:
                    continue
                goes[i] *= 1 - self._road.stops[at] if at > passed else 1.0
                none, slowest = none * (1 - goes[i]), max(slowest, slow)
            seconds += leg * (1 - none) * slowest
        return seconds

    def _slow(self, trial: TrialRecord) -> float:
        """How much slower a trial is than others, as far as it shows; 1 for one of the mean pace."""
        points = [p for p in trial.points if p.step > (trial.setup.get("resumed_step") or 0)]
        if len(points) < 2:
            return 1.0
        first, last = (self._road.place_of(trial, p.step) for p in (points[0], points[-1]))
        one, usual = self._legs[first], sum(self._legs[first:last])  # one more at the mean pace: two points say little
        return max(0.0, points[-1].seconds - points[0].seconds + one) / (usual + one) if usual + one else 1.0

    def _times(self) -> tuple[list[float], int]:
        """The mean seconds of the way to each place, and how many were measured. The first one of a worker counts only
        where there is nothing else, and half."""
        road = self._road
        sums, counts, cold = [0.0] * len(road.places), [0] * len(road.places), [0.0]
        for trial in self._recent():
            before = trial.set_up or 0.0
            points = [p for p in trial.points if p.step > (trial.setup.get("resumed_step") or 0)]
            heard, last = trial.heard or before, points[-1].seconds if points else 0.0
            slower = min(1.0, (heard - (trial.started or before)) / last) if last else 1.0  # a node's clock may differ
            for point in points:
                when = heard - slower * (last - point.seconds)
                took, before, at = max(0.0, when - before), when, road.place_of(trial, point.step) - 1
                if point is points[0] and trial.number < self._slots:
                    cold.append(took)
                elif at >= 0:
                    sums[at], counts[at] = sums[at] + took, counts[at] + 1
        ways = [to - at for at, to in zip((0.0, *road.places), road.places, strict=False)]
        known = [(total / n, way) for total, n, way in zip(sums, counts, ways, strict=True) if n]
        known = known or [(max(cold) / 2, ways[0])]
        each = sum(took for took, _ in known) / len(known)
        pace = sum(took for took, _ in known) / sum(way for _, way in known)
        # Part of the time is the evaluation's, which a short way has as well as a long one.
        times = [
            total / n if n else (each + min(pace * way, 2 * each)) / 2
            for total, n, way in zip(sums, counts, ways, strict=True)
        ]
        return times, sum(counts)

    def _recent(self) -> Sequence[TrialRecord]:
        return self._begun[-min(MOST_RECENT, max(RECENT, len(self._begun) // 3)) :]

    def _at_a_time(self) -> float:
        """How many trials train at a time: the seconds that recent ones took, over the seconds that passed. It is less
        than there are workers, by the time in which these wait for their next trial."""
        since = min((t.set_up or 0.0) for t in self._recent())
        took = 0.0
        for trial in self._begun:
            begun = trial.set_up or 0.0
            end = self._now if trial.is_running else trial.heard or begun
            took += max(0.0, end - max(begun, since)) + (self._begin if begun > since else 0.0)
        return min(max(took / max(self._now - since, 1e-9), 0.02), self._slots)


def _share(trial: TrialRecord) -> float:
    """The share of its budget that a trial has used, by steps."""
    steps = trial.max_steps
    return min(1.0, trial.step / steps) if steps else 0.0


def _over(road: _Road, trial: TrialRecord) -> float:
    """The share of the budget that a trial has gone beyond its last place."""
    at = road.reached(trial)
    return max(0.0, _share(trial) - road.places[at - 1]) if at else 0.0


def _shares(told: Any) -> list[float]:
    """Shares of the budget as a ledger has them; none where they are not such."""
    if not isinstance(told, list) or not all(isinstance(s, int | float) and 0 < s <= 1 for s in told):
        return []
    return sorted({float(share) for share in told})


def _seen(trials: Sequence[TrialRecord]) -> list[float]:
    """The places of a search whose ledger does not say them: where its longest trial was evaluated, and regular ones
    from there on."""
    longest = max(trials, key=_share, default=None)
    steps = longest.max_steps if longest else None
    found = sorted({min(1.0, p.step / steps) for p in longest.points if p.step}) if longest and steps else []
    while not found or found[-1] < 1.0 - EVERY / 4:
        found.append(min(1.0, (found[-1] if found else 0.0) + EVERY))
    return [*found[:-1], 1.0]


def _rungs(record: SearchRecord) -> tuple[list[float], float]:
    """The rungs, as shares of the budget, and the share of the trials that get past one. A single trial is compared
    with none."""
    if record.num_trials == 1:
        return [], 1.0
    if "rungs" not in record.ladder:
        return [RUNG], PASSED
    factor = record.ladder.get("reduction_factor")
    return _shares(record.ladder["rungs"]), 1 / factor if isinstance(factor, int | float) and factor > 1 else PASSED
