"""A sampler that models the losses at rungs: an Optuna sampler like any other, usable without the rest of tuner.

encoding.py    parameters as coordinates: ranges, ordered choices, categories, conditions
readings.py    what a study says of each trial: losses by resource, bounds, the trials that still run
process.py     the Gaussian process over configuration and resource, and how it is fitted
sampler.py     the sampler: quasi-random start, expected improvement at the full budget
"""

from tuner.study.rungs.sampler import RungSampler

__all__ = ["RungSampler"]
