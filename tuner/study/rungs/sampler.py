"""An Optuna sampler that learns from the losses at rungs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr

from tuner.study.rungs import readings as reading
from tuner.study.rungs.encoding import ABSENT, Conditions, Encoding
from tuner.study.rungs.process import Process, fit

STARTUP = 6
"""Trials of the quasi-random start."""

FITTED = 110
"""Readings at most that the kernel's parameters are fitted to: a step of the fit takes the cube of their number."""

MODELLED = 260
"""Readings at most that the process is conditioned on."""

CANDIDATES = 400
"""Configurations drawn all over the space, of which those with the highest expected improvement are refined."""

AROUND = 6
"""Configurations, of the best ones known and found, that are refined."""


class RungSampler(BaseSampler):
    """Suggests the configuration with the highest expected improvement at the full budget.

    A Gaussian process over configuration and resource together models every loss that a trial has reported, so that a
    trial that was stopped at a rung counts for what it was: samplers that learn from completed trials alone learn from
    the few that the rungs let pass, and those that rank the stopped ones compare losses at different resources. See
    process.py for the model, and FABOLAS (Klein et al. 2017), freeze-thaw (Swersky et al. 2014) and DyHPO (Wistuba et
    al. 2022, arXiv:2202.09774) for the idea. The scheduler decides how long a trial trains; this decides only where.

    - Trials that diverged or could not be trained count as the worst loss seen. Failed ones count for nothing.
    - Trials that run are believed to end where the model expects.
    - Two trials of a finite space are the same point only where no other is left.

    It has no state: what it suggests depends on the seed, the number of the trial, and the study. It can be used with
    any pruner. A study has one objective; intermediate values are values of it, at steps that mean a resource.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = STARTUP,
        max_resource: float | None = None,
        space: Mapping[str, BaseDistribution] | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        """n_startup_trials: of the quasi-random start, which lasts until so many have reported something.
        max_resource: the step at which a trial ends; None: the highest one that was reported. space: all parameters
        that a trial can have; None: those that trials have had. conditions: see `Encoding`; None: learnt from the
        trials.

        Raises ValueError for a number of trials below 1 or a resource that is not above 0."""
        if n_startup_trials < 1:
            raise ValueError(f"n_startup_trials must be at least 1 but got {n_startup_trials}.")
        if max_resource is not None and not max_resource > 0:
            raise ValueError(f"max_resource must be above 0 but got {max_resource}.")
        self._seed = int(numpy.random.SeedSequence(seed).generate_state(1)[0])
        self._startup, self._max_resource = n_startup_trials, max_resource
        self._space, self._conditions = space, conditions

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters: those that were given, or that trials have had, each as it was drawn last."""
        if self._space is not None:
            return dict(self._space)
        found: dict[str, BaseDistribution] = {}
        for before in study.get_trials(deepcopy=False):
            if before.number != trial.number and before.state is not TrialState.WAITING:
                found.update(before.distributions)
        return found

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Raises ValueError where the study has several objectives."""
        if len(study.directions) > 1:
            raise ValueError("RungSampler takes a study with one objective.")
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        encoding = Encoding(search_space, self._conditions)
        if self._conditions is None:
            encoding.learn_conditions([t.params for t in trials if t.params])
        fixed = {name: d.to_external_repr(_only(d)) for name, d in search_space.items() if d.single()}
        if not encoding.names:
            return fixed
        random = numpy.random.default_rng([self._seed, trial.number])
        sign = 1.0 if study.direction is not StudyDirection.MAXIMIZE else -1.0
        read = reading.read(trials, encoding, sign=sign, max_resource=self._max_resource)
        judged, learnt = set(read.trial.tolist()), set(read.trial[read.finite].tolist())
        if len(judged) < self._startup or len(learnt) < 2:
            row = self._start(encoding, trial.number, read.points)
        else:
            row = propose(read, encoding, random)
        given = encoding.decode(row)
        # A parameter that the model takes for absent may be asked for nevertheless
        for name in encoding.names:
            if name not in given:
                given[name] = encoding.axes[name].value(float(encoding.axes[name].from_uniform(random.random(1))[0]))
        return {**fixed, **given}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that no trial has had yet, at random."""
        seed = int(numpy.random.default_rng([self._seed, trial.number, _hash(param_name)]).integers(2**32))
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing: numbers depend on the trial's own, so that no two processes draw the same."""

    def _start(self, encoding: Encoding, number: int, known: numpy.ndarray) -> numpy.ndarray:
        """The configuration [parameters] of a start-up trial: that of a quasi-random sequence for its number."""
        for turn in range(100):
            row = encoding.from_uniform(quasi_random(len(encoding.names), 1, self._seed, number + 1000 * turn))[0]
            if not encoding.is_finite or not _are_in(row[None], known)[0]:
                break
        return row


def propose(read: reading.Readings, encoding: Encoding, random: numpy.random.Generator) -> numpy.ndarray:
    """The configuration [parameters] with the highest expected improvement at the full budget."""
    y = reading.flattened(read)
    order = _by_weight(read, y)
    some, most = order[:FITTED], order[:MODELLED]
    known, (points, owners) = read.points, encoding.features(read.points)
    kernel, theta = fit(points[read.trial[some]], owners, read.resource[some], y[some])
    process = Process(points[read.trial[most]], owners, read.resource[most], y[most], theta, kernel)
    process = process.believing(points[read.runs])
    mean, _ = process.at_full_budget(points)
    best = float(mean.min())
    leaders = known[numpy.argsort(mean, kind="stable")[:AROUND]]

    def score(rows: numpy.ndarray) -> numpy.ndarray:
        expected, deviation = process.at_full_budget(encoding.features(rows)[0])
        found = log_expected_improvement(best, expected, deviation)
        if encoding.is_finite:
            found = numpy.where(_are_in(rows, known), -numpy.inf, found)
        return found

    uniform = quasi_random(len(encoding.names), CANDIDATES, int(random.integers(2**31)), 0)
    rows = numpy.concatenate([encoding.from_uniform(uniform), *_near(leaders, encoding, random, 0.1, 16)])
    scores = score(rows)
    for width in (0.1, 0.04, 0.015):
        top = rows[numpy.argsort(-scores, kind="stable")[:AROUND]]
        more = numpy.concatenate(_near(top, encoding, random, width, 14))
        rows, scores = numpy.concatenate([rows, more]), numpy.concatenate([scores, score(more)])
    return rows[int(scores.argmax())]


def log_expected_improvement(best: float, mean: numpy.ndarray, deviation: numpy.ndarray) -> numpy.ndarray:
    """The logarithm of the expected improvement [n] below `best`; exact far from it, where the improvement is 0 in
    floating point (Ament et al. 2023, arXiv:2310.20708)."""
    z = (best - mean) / deviation
    with numpy.errstate(divide="ignore", invalid="ignore"):
        plain = numpy.log(numpy.exp(-0.5 * z * z) / numpy.sqrt(2 * numpy.pi) + z * numpy.exp(log_ndtr(z)))
    far = z < -5
    tail = -0.5 * z * z - 0.5 * numpy.log(2 * numpy.pi) - 2 * numpy.log(numpy.maximum(-z, 1.0))
    return numpy.where(far | ~numpy.isfinite(plain), tail, plain) + numpy.log(deviation)


def quasi_random(dimensions: int, count: int, seed: int, first: int) -> numpy.ndarray:
    """Numbers `first` to `first + count` of a sequence [count, dimensions] in [0, 1) that fills the cube evenly: steps
    of the generalized golden ratio (Roberts 2018), from a start that the seed gives."""
    root = 2.0
    for _ in range(40):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    steps = root ** -numpy.arange(1.0, dimensions + 1)
    start = numpy.random.default_rng(seed).random(dimensions)
    return (start + (first + numpy.arange(count))[:, None] * steps) % 1.0


def _near(
    rows: numpy.ndarray, encoding: Encoding, random: numpy.random.Generator, width: float, count: int
) -> list[numpy.ndarray]:
    """For each row, `count` configurations near it: [count, parameters] each. width: the standard deviation."""
    near = []
    chances: Sequence[Callable[[numpy.ndarray], numpy.ndarray]] = [a.from_uniform for a in encoding.axes.values()]
    for row in rows:
        found = numpy.repeat(row[None], count, 0)
        moved = random.random(found.shape) < max(0.4, 1.5 / found.shape[1])
        steps = random.normal(0.0, width, found.shape)
        drawn = random.random(found.shape)
        for index, chance in enumerate(chances):
            absent = found[:, index] == ABSENT
            here = moved[:, index]
            if encoding.ordered[index]:
                axis = list(encoding.axes.values())[index]
                gap = 1.0 / max(1, (axis.count or 1000) - 1)
                found[here, index] += steps[here, index] * max(1.0, gap / width)
            else:
                again = here & (random.random(count) < 0.5)
                found[again, index] = chance(drawn[again, index])
            found[absent, index] = chance(drawn[absent, index])
        near.append(encoding.rounded(found))
    return near


def _by_weight(read: reading.Readings, y: numpy.ndarray) -> numpy.ndarray:
    """The places [readings] of the readings, those first that say most: the last ones of trials, the best of them
    first, then earlier ones."""
    last = numpy.zeros(len(y), bool)
    if len(y):
        last[numpy.append(read.trial[1:] != read.trial[:-1], True)] = True
    return numpy.lexsort((numpy.arange(len(y)), y, ~last))


def _are_in(rows: numpy.ndarray, known: numpy.ndarray) -> numpy.ndarray:
    """[n] bool: whether each row is one of the known ones."""
    if not len(known):
        return numpy.zeros(len(rows), bool)
    return (numpy.abs(rows[:, None, :] - known[None]) < 1e-9).all(2).any(1)


def _only(distribution: BaseDistribution) -> float:
    """The internal value of a distribution that has one value."""
    is_range = isinstance(distribution, FloatDistribution | IntDistribution)
    return float(distribution.low) if is_range else 0.0


def _hash(name: str) -> int:
    return zlib.crc32(name.encode())
