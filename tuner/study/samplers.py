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


WINDOW = 500
"""Finished trials that TPE is shown at most."""


def window_of(settings: Any) -> int | None:
    """How many finished trials the sampler is shown at most; None for all."""
    return WINDOW if settings.kind == "tpe" else None


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
