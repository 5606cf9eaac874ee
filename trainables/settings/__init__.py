"""The SFT program's sections of the experiment file: typed, strict, torch-free.

model.py       section `model`: which base, at which precision
data.py        section `data`: which rows, how they become tokens
metrics.py     section `metrics`: what is measured of answers
train.py       section `train`: the recipe, i.e. the default hyperparameters
section.py     the base class of all sections
root.py        all sections together
spreading.py   whether several processes can train with the settings
retraining.py  one point trained again: at another length, or from its adapter
searchable.py  what a space may vary, what it may not and why; `with_params`
unused.py      sentences about settings that have no effect beside the others
steps.py       arithmetic of batches, steps, warm-up and evaluation points
"""

from __future__ import annotations

from trainables.settings.data import DataSettings
from trainables.settings.metrics import MetricSettings
from trainables.settings.model import NF4, ModelSettings, Unquantized
from trainables.settings.root import Settings
from trainables.settings.searchable import PARAMETERS, REFUSED, with_params
from trainables.settings.train import TrainSettings

__all__ = [
    "NF4",
    "PARAMETERS",
    "REFUSED",
    "DataSettings",
    "MetricSettings",
    "ModelSettings",
    "Settings",
    "TrainSettings",
    "Unquantized",
    "with_params",
]
