"""Finds out which settings PEFT refuses where an adapter is on a tensor that holds all experts of a layer.

Such a tensor is no layer: PEFT adapts the tensor itself (`target_parameters`), without dropout, DoRA and
initialisations that read a layer's weight. PEFT is asked on a tensor of its own, so its next version decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

from trainables.settings.train import Init, TrainSettings
from tuner.contract import Fault, Reason


@cache
def refused() -> tuple[str, ...]:
    """The settings, as `_used` writes them, with which PEFT makes no adapter on a tensor of experts."""
    from peft import LoraConfig, get_peft_model
    from torch import nn, randn

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight_of_all = nn.Parameter(randn(2, 8, 8))

    asked: dict[str, dict[str, Any]] = {
        "lora_dropout": {"lora_dropout": 0.1},
        "use_dora": {"use_dora": True},
        "lora_alpha_mode rslora": {"use_rslora": True},
        **{f"init_lora_weights {init}": {"init_lora_weights": init} for init in get_args(Init) if init != "true"},
    }
    found = []
    for name, values in asked.items():
        config = LoraConfig(r=2, target_modules=[], target_parameters=["experts.weight_of_all"], **values)
        try:
            get_peft_model(nn.ModuleDict({"experts": Experts()}), config)
        except (ValueError, AttributeError):  # pissa, olora and orthogonal look for a layer's weight
            found.append(name)
    return tuple(found)


def fault(settings: TrainSettings, refusals: Sequence[str]) -> Fault | None:
    """What is wrong with the settings for an adapter on tensors of experts; None where PEFT makes one.

    refusals: as `refused` gives them.
    """
    wrong = [name for name in _used(settings) if name in refusals]
    if not wrong:
        return None
    return Fault(
        Reason.ERROR,  # it ends the trial alone: a recipe with them is refused before the first (reach.py)
        f"{' and '.join(wrong)} with target_modules {settings.target_modules}: the base has all experts of a layer in "
        "one tensor, and PEFT puts no such adapter on a tensor",
        f"leave out {' and '.join(name.partition(' ')[0] for name in wrong)}, or take target_modules without the "
        "experts (attention)",
    )


def _used(settings: TrainSettings) -> list[str]:
    """The settings that are not on every kind of adapter."""
    return [
        *(["lora_dropout"] if settings.lora_dropout > 0 else []),
        *(["use_dora"] if settings.use_dora else []),
        f"lora_alpha_mode {settings.lora_alpha_mode}",
        f"init_lora_weights {settings.init_lora_weights}",
    ]
