"""Samplers, one for each `search.sampler.kind`.

A sampler is built anew for every trial, seeded by the search's seed and the trial's number. What it suggests is then
a function of the study's trials alone: a search that was interrupted and resumed suggests what an undisturbed one
would have, without a pickled random state.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tuner.contract import InputError
from tuner.seeds import derive_seed

if TYPE_CHECKING:
    import optuna


def startup_trials(num_trials: int) -> int:
    """Random trials before TPE begins to model: a quarter of the search, at least 4, at most Optuna's own 10.

    Optuna's default of 10 would make a 16-trial search mostly random.
    """
    return max(4, min(10, num_trials // 4))


def quasi_random_trials(num_trials: int) -> int:
    """Trials before `rungs` begins to model: a quarter of the search, at least 4, at most 7.

    In replayed searches 5 or 7 were as good as 10 with 8 trials at a time, and better with one: regret 0.8% instead of
    1.0% at 30% of the tokens of 64 full trials.
    """
    return max(4, min(7, num_trials // 4))


WINDOW = 500
"""Finished trials that a sampler is shown at most which reads all of them for each suggestion."""


def window_of(settings: Any) -> int | None:
    """How many finished trials the sampler is shown at most; None for all."""
    return WINDOW if settings.kind in ("tpe", "rungs") else None


def distributions(space: Any) -> dict[str, Any] | None:
    """Optuna's distribution of every parameter of a space; None for a space that is a function."""
    from optuna.trial import FixedTrial

    if not space.parameters:
        return None
    found = {}
    for name, parameter in space.parameters.items():
        trial = FixedTrial({name: parameter.encode(parameter.extremes()[0])})
        parameter.suggest(trial, name)
        found[name] = trial.distributions[name]
    return found


def conditions(space: Any) -> dict[str, Any] | None:
    """The conditions of a space, with values as Optuna stores them; None for a space that is a function."""
    if not space.parameters:
        return None
    return {
        name: {
            parent: [space.parameters[parent].encode(value) for value in values] for parent, values in p.when.items()
        }
        for name, p in space.parameters.items()
        if p.when
    }


def make_sampler(settings: Any, space: Any, *, num_trials: int, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that suggests trial `number`. `settings` is `search.sampler`, `space` a `tuner.space` space."""
    import optuna

    from tuner.study.grid import GridWalk

    trial_seed = derive_seed(seed, "sampler", number)
    search_seed = derive_seed(seed, "sampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match settings.kind:
            case "tpe":
                return optuna.samplers.TPESampler(
                    n_startup_trials=settings.n_startup_trials or startup_trials(num_trials),
                    multivariate=True,
                    group=True,
                    seed=trial_seed,
                )
            case "rungs":
                from tuner.study.rungs import RungSampler

                return RungSampler(
                    seed=search_seed, space=distributions(space), conditions=conditions(space),
                    n_startup_trials=settings.n_startup_trials or quasi_random_trials(num_trials),
                )  # fmt: skip
            case "random":
                return optuna.samplers.RandomSampler(seed=trial_seed)
            case "gp":
                return optuna.samplers.GPSampler(seed=trial_seed, n_startup_trials=startup_trials(num_trials))
            case "cmaes":
                return optuna.samplers.CmaEsSampler(seed=trial_seed, n_startup_trials=startup_trials(num_trials))
            case "qmc":  # one scrambled sequence for the whole search; the study keeps the place in it
                return optuna.samplers.QMCSampler(scramble=True, seed=search_seed)
            case "grid":
                return GridWalk(space, seed=search_seed)
            case kind:
                raise InputError(f"unknown sampler {kind!r}", where="search.sampler.kind")
