"""All sections together."""

from __future__ import annotations

from pydantic import model_validator

from trainables.settings.data import DataSettings
from trainables.settings.metrics import Metrics, MetricSettings
from trainables.settings.model import ModelSettings
from trainables.settings.section import Section
from trainables.settings.train import TrainSettings

_NEEDS_PLAIN_WEIGHTS = ("pissa", "olora", "orthogonal")
"""pissa and olora rewrite the base's weights; orthogonal takes its dtype from them, which is uint8 under NF4."""


class Settings(Section):
    """What the SFT program reads of an experiment file."""

    model: ModelSettings
    """Which base model, at which precision."""

    data: DataSettings
    """Which rows, and how they become tokens."""

    train: TrainSettings = TrainSettings()
    """The recipe: the default hyperparameters."""

    metrics: Metrics = MetricSettings()
    """What is measured of a trial's answers; also a list of names."""

    @model_validator(mode="after")
    def _init_fits_quantization(self) -> Settings:
        if self.model.quantization.kind == "nf4" and self.train.init_lora_weights in _NEEDS_PLAIN_WEIGHTS:
            raise ValueError(
                f"train.init_lora_weights {self.train.init_lora_weights} works on the base's own weights and cannot "
                "be used with model.quantization nf4: use true or gaussian, or quantization none"
            )
        return self
