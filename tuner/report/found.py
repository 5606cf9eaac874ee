"""What a search found out about its parameters, in words: which mattered, where the best values lie, which range was
too narrow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.report import formatting as words
from tuner.report.lines import clean, shorten
from tuner.results.records import SearchRecord, TrialRecord
from tuner.study.importance import (
    LEAST,
    Importance,
    Importances,
    compared,
    importances,
    read_distribution,
    top_of,
)

AT_THE_EDGE = 0.05
"""The share of a range, on its own scale, that counts as its edge."""
NEAR_THE_EDGE = 0.25
"""The share of a range in which the second best trial must lie too, where the parameter cannot be told from chance."""
_LONGEST = 40
"""Characters of a parameter's name and of a value."""


@dataclass(frozen=True)
class Edge:
    """A parameter whose best value lies at the end of its range."""

    name: str
    """The parameter."""
    side: Literal["lower", "upper"]
    """Which end."""
    bound: float
    """The end of the range."""
    beyond: float | int | None
    """A value to try behind it; None where there is none, as below 0."""

    @property
    def sentence(self) -> str:
        """ "learning_rate ends at its upper bound 3e-2: search higher"."""
        way = "higher" if self.side == "upper" else "lower"
        return f"{_name(self.name)} ends at its {self.side} bound {words.exact(self.bound)}: search {way}"


@dataclass(frozen=True)
class Found:
    """What a search found."""

    importances: Importances | None
    """By parameter; None where there are too few trials to say anything."""
    ranges: Mapping[str, str]
    """The values of the best trials, in words, by parameter: "1.9e-3 to 6.9e-3"."""
    best: int
    """How many trials those are; 0 where there are too few."""
    trials: int
    """How many trials were compared."""
    edges: tuple[Edge, ...]
    """The parameters whose range was too narrow."""

    @property
    def sentences(self) -> list[str]:
        """All of it, one sentence each."""
        mattered = self.mattered
        return [*([mattered] if mattered else []), *(edge.sentence for edge in self.edges)]

    @property
    def mattered(self) -> str:
        """Which parameters mattered; "" where nothing can be said."""
        if self.importances is None:
            return ""
        parameters = self.importances.parameters
        first, rest = parameters[0], [one for one in parameters[1:] if one.matters]
        if len(parameters) == 1:
            return f"the best {self.best} of {self.trials} trials have {_name(first.name)} {self.ranges[first.name]}"
        if not first.matters:
            return (
                f"no parameter stands out from chance in {self.importances.trials} trials; "
                f"{_name(first.name)} comes first ({_share(first)})"
            )
        told = f"{_name(first.name)} mattered most ({_share(first)}; the best {self.best} of {self.trials} trials: "
        told += f"{self.ranges[first.name]})"
        if rest:
            told += f", then {words.listing([f'{_name(o.name)} ({words.whole_percent(o.share)})' for o in rest])}"
        return told


def found(record: SearchRecord) -> Found:
    """What a search found, the same at every call for the same record."""
    trials = compared(record)
    if len(trials) < LEAST:
        return Found(None, {}, 0, len(trials), ())
    importance = importances(record)
    best = [trial for trial in trials if trial.is_usable][: top_of(len(trials))]
    names = [one.name for one in importance.parameters] if importance else []
    ranges = {name: _range([trial.params[name] for trial in best if name in trial.params]) for name in names}
    matters = {one.name for one in importance.parameters if one.matters} if importance else set()
    return Found(importance, ranges, len(best), len(trials), _edges(best, names, matters))


def noise(record: SearchRecord) -> tuple[float, int] | None:
    """How much equal settings differ: the standard deviation of the best value as a share of it, over completed trials
    with the same parameters, and how many such trials there are. None where no settings ran to their end twice."""
    groups: dict[str, list[float]] = {}
    for trial in record.ranked:
        if str(trial.status) == "completed" and trial.best_value is not None:
            groups.setdefault(repr(sorted(trial.params.items(), key=lambda one: one[0])), []).append(trial.best_value)
    repeated = [values for values in groups.values() if len(values) > 1]
    free = sum(len(values) - 1 for values in repeated)
    means = [sum(values) / len(values) for values in repeated]
    if not free or not all(means):
        return None
    pairs = [(value, mean) for values, mean in zip(repeated, means, strict=True) for value in values]
    share = math.sqrt(sum(((value - mean) / mean) * ((value - mean) / mean) for value, mean in pairs) / free)
    return (share, len(pairs)) if math.isfinite(share) else None


def _edges(best: list[TrialRecord], names: list[str], matters: set[str]) -> tuple[Edge, ...]:
    if len(best) < 2:
        return ()
    out = []
    for name in names:
        ends = _Ends.of(best[0], name)
        if ends is None:
            continue
        place = ends.place(best[0].params[name])
        side: Literal["lower", "upper"] = "upper" if place > 0.5 else "lower"
        if min(place, 1 - place) > AT_THE_EDGE:
            continue
        second = ends.place(best[1].params[name]) if _is_number(best[1].params.get(name)) else 0.5
        if name not in matters and (1 - second if side == "upper" else second) > NEAR_THE_EDGE:
            continue
        bound = ends.high if side == "upper" else ends.low
        if bound != 0:  # nothing lies below a rate of 0
            out.append(Edge(name, side, bound, ends.beyond(side)))
    return tuple(out)


@dataclass(frozen=True)
class _Ends:
    """The range that a number was drawn from."""

    low: float
    high: float
    log: bool
    whole: bool

    @classmethod
    def of(cls, trial: TrialRecord, name: str) -> _Ends | None:
        """The range of a trial's parameter; None where it is a choice, or is not known."""
        from optuna.distributions import FloatDistribution, IntDistribution

        drawn = read_distribution(trial.distributions.get(name, ""))
        if not isinstance(drawn, FloatDistribution | IntDistribution) or not _is_number(trial.params.get(name)):
            return None
        return cls(drawn.low, drawn.high, drawn.log, isinstance(drawn, IntDistribution))

    def place(self, value: float) -> float:
        """Where a value lies in the range, from 0 to 1."""
        if self.log and value <= 0:
            return 0.5
        low, high, at = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (at - low) / (high - low)

    def beyond(self, side: str) -> float | int | None:
        """A value behind an end: twice as far on a scale of powers, a quarter of the range on any other."""
        upper = side == "upper"
        if self.log:
            value = self.high * 2 if upper else self.low / 2
        else:
            step = (self.high - self.low) / 4
            value = self.high + step if upper else self.low - step
            if not upper and self.low > 0 >= value:
                return None
        if not self.whole:
            return value
        rounded = math.ceil(value) if upper else math.floor(value)
        return rounded if rounded > 0 or self.low <= 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range(values: list[Any]) -> str:
    """The values of the best trials: the two ends of numbers, or the choices, the most frequent first."""
    numbers = [value for value in values if _is_number(value)]
    if numbers and len(numbers) == len(values):
        powers = any(map(words.is_scientific, numbers))
        ends = [words.value(end, powers) for end in (min(numbers), max(numbers))]
        return ends[0] if ends[0] == ends[1] else " to ".join(ends)
    told = [shorten(clean(words.value(value)), _LONGEST) for value in values]
    shown = sorted(dict.fromkeys(told), key=lambda one: -told.count(one))
    return words.listing(shown[:4], "or") if shown else "no value"


def _share(one: Importance) -> str:
    low, high = words.whole_percent(one.low), words.whole_percent(one.high)
    return f"{words.whole_percent(one.share)} of the importance, {low} to {high} in resamples"


def _name(name: str) -> str:
    return shorten(clean(name), _LONGEST)
