"""Which parameters mattered: Optuna's PED-ANOVA over the trials of a search, and how far chance goes.

PED-ANOVA compares how a parameter is distributed over the best trials with how it is over all of them, so it needs an
order of the trials and not their values. The order is that of the leaderboard: completed trials, then those that were
stopped at a rung, then those that diverged or ran out of memory. With completed trials alone, a search of 16 trials
under ASHA would be judged by five.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.contract import Reason
from tuner.results.records import SearchRecord, TrialRecord
from tuner.space.parameters import label

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LEAST = 8
"""The fewest trials that anything is said of."""
MOST = 120
"""The most trials that are looked at, drawn at random where there are more; an evaluation then takes 10 ms."""
MOST_CHOICES = 1000
"""The most values of a choice; no space has as many, and a stranger's ledger might."""
LARGEST = 1e15
"""The largest end of a range."""
TOP = 6
"""How many trials count as the best ones: a tenth of all where that is more. PED-ANOVA wants at least 5; with 6, a
parameter that alone decides is told from chance in 10 of 12 searches of 16 trials, with 5 in 9."""
RESAMPLES = 50
"""Bootstrap resamples of the trials, for the interval."""
MISLED = 0.05
"""In which share of the searches in which nothing matters some parameter may be named."""
SHUFFLES = 100
"""Shuffles of the trials' order, for what chance alone gives."""


@dataclass(frozen=True)
class Importance:
    """How much one parameter mattered."""

    name: str
    """The parameter."""
    share: float
    """Its share of all parameters' importance, in [0, 1]."""
    low: float
    """The share that is reached in all but a twentieth of the resamples."""
    high: float
    """The share that is exceeded in a twentieth of the resamples."""
    chance: float
    """In which share of the shuffles its importance is at least as large."""
    matters: bool
    """Whether that is so seldom that one in twenty searches in which nothing matters names a parameter."""


@dataclass(frozen=True)
class Importances:
    """The importances of the parameters of a search."""

    parameters: tuple[Importance, ...]
    """The largest share first."""
    trials: int
    """How many trials were compared: at most MOST."""


def importances(record: SearchRecord) -> Importances | None:
    """The importances of a search's parameters, the same at every call for the same record. None where there are fewer
    than LEAST trials, where the ledger has no distributions, or where no parameter differs."""
    trials = compared(record)
    if len(trials) < LEAST:
        return None
    chance = random.Random(0)  # noqa: S311
    if len(trials) > MOST:
        trials = [trials[place] for place in sorted(chance.sample(range(len(trials)), MOST))]
    ranks = _ranks(trials)
    kept = [(rank, made) for trial, rank in zip(trials, ranks, strict=True) if (made := _frozen(trial, rank))]
    if len(kept) < LEAST:
        return None
    try:
        parameters = _parameters([made for _, made in kept], [rank for rank, _ in kept], chance)
    except Exception:  # a stranger's distributions; the end of a search must not fail because nothing can be said
        return None
    if not parameters:
        return None
    return Importances(parameters, len(kept))


def compared(record: SearchRecord) -> list[TrialRecord]:
    """The trials that say something of their parameters, the winner first: usable ones, then those that could not be
    trained."""
    unfit = (Reason.DIVERGED, Reason.OUT_OF_MEMORY)
    return [*record.ranked, *(trial for trial in record.ended if trial.reason in unfit)]


def read_distribution(text: str) -> BaseDistribution | None:
    """Optuna's distribution of its JSON; None for anything that no space has: an endless range, too many choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, json_to_distribution

    try:
        found = json_to_distribution(text)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        return None
    if isinstance(found, CategoricalDistribution):
        return found if len(found.choices) <= MOST_CHOICES else None
    if not isinstance(found, FloatDistribution | IntDistribution):
        return None
    return found if -LARGEST <= found.low < found.high <= LARGEST else None


def _ranks(trials: Sequence[TrialRecord]) -> list[float]:
    usable = sum(trial.is_usable for trial in trials)
    return [float(min(place, usable)) for place in range(len(trials))]  # those that could not be trained are equal


def top_of(trials: int) -> int:
    """How many of this many trials count as the best ones."""
    return max(TOP, trials // 10)


def _frozen(trial: TrialRecord, rank: float) -> FrozenTrial | None:
    from optuna.trial import create_trial

    known = {name: read_distribution(text) for name, text in trial.distributions.items() if name in trial.params}
    distributions: dict[str, Any] = {name: found for name, found in known.items() if found is not None}
    try:
        params = {name: label(trial.params[name]) for name in distributions}
        made = create_trial(params=params, distributions=distributions, value=rank)
    except (ValueError, TypeError, ArithmeticError):
        return None
    return made if params else None


def _parameters(trials: list[FrozenTrial], ranks: list[float], chance: random.Random) -> tuple[Importance, ...]:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    everyone = range(len(trials))
    resamples = [Counter(chance.choices(everyone, k=len(trials))) for _ in range(RESAMPLES)]
    # One study for all evaluations, each trial in it as often as a resample has it: to add a trial costs a millisecond.
    copies = {place: max(1, *(drawn[place] for drawn in resamples)) for place in everyone}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    owner: list[tuple[int, int]] = []
    for place, trial in enumerate(trials):
        for copy in range(copies[place]):
            study.add_trial(trial)
            owner.append((place, copy))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, top_of(len(trials)) / len(trials)))

    def evaluate(values: Sequence[float], times: Mapping[int, int] | None = None) -> dict[str, float]:
        """By parameter. values: of the trials, the lowest is best. times: how often each counts; once if None."""
        told = [
            values[place] if copy < (times.get(place, 0) if times is not None else 1) else float("inf")
            for place, copy in owner
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on small numbers of trials, which the interval says better
            return evaluator.evaluate(study, target=lambda trial: told[trial.number])

    whole = evaluate(ranks)
    total = sum(whole.values())
    if not total > 0:
        return ()
    shares: dict[str, list[float]] = {name: [] for name in whole}
    for drawn in resamples:
        found = evaluate(ranks, drawn)
        of_all = sum(found.values())
        for name, values in shares.items():
            values.append(found.get(name, 0.0) / of_all if of_all > 0 else 1 / len(whole))
    beaten = Counter[str]()
    for _ in range(SHUFFLES):
        found = evaluate(chance.sample(ranks, len(ranks)))
        beaten.update(name for name, value in whole.items() if found.get(name, 0.0) >= value)
    told = [
        Importance(
            name,
            value / total,
            *_interval(shares[name]),
            chance=beaten[name] / SHUFFLES,
            matters=beaten[name] / SHUFFLES <= MISLED / len(whole),
        )
        for name, value in whole.items()
    ]
    return tuple(sorted(told, key=lambda one: (-one.share, one.name)))


def _interval(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values)
    cut = len(ordered) // 20
    return ordered[cut], ordered[-1 - cut]
