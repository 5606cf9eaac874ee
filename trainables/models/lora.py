"""Makes a LoraConfig of the settings."""

from __future__ import annotations

from typing import Any

from trainables.models import targets
from trainables.settings import Settings


def lora_config(settings: Settings, base: Any) -> Any:
    """The `peft.LoraConfig` of a trial on `base`. Raises Fault for target modules that the base lacks."""
    from peft import LoraConfig

    train = settings.train
    alpha = train.alpha
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=train.lora_r,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        use_rslora=train.lora_alpha_mode == "rslora",
        lora_dropout=train.lora_dropout,
        target_modules=targets.resolve(base, train.target_modules),
        use_dora=train.use_dora,
        init_lora_weights=True if train.init_lora_weights == "true" else train.init_lora_weights,
        revision=settings.model.model_revision,
    )
