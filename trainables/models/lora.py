"""Makes a LoraConfig of the settings."""

from __future__ import annotations

import re
from typing import Any

from trainables.models import parts, passage, targets, tensor_adapters
from trainables.models.parts import Kind, Part, Tower
from trainables.settings import Settings
from tuner.contract import Fault, Reason


def lora_config(settings: Settings, base: Any) -> Any:
    """The `peft.LoraConfig` of a trial on `base`.

    Raises Fault for target modules that the base lacks, and for settings that PEFT refuses for them.
    """
    from peft import LoraConfig

    train = settings.train
    alpha = train.alpha
    layers = targeted(base, train.target_modules, adapts_vision=settings.model.vision == "adapted")
    if targets.reach_tensors(base, layers) and (fault := tensor_adapters.fault(train, tensor_adapters.refused())):
        raise fault
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=train.lora_r,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        use_rslora=train.lora_alpha_mode == "rslora",
        lora_dropout=train.lora_dropout,
        **layers,
        use_dora=train.use_dora,
        init_lora_weights=True if train.init_lora_weights == "true" else train.init_lora_weights,
        revision=settings.model.model_revision,
    )


def targeted(base: Any, target_modules: str | list[str], *, adapts_vision: bool = False) -> dict[str, Any]:
    """The arguments of `peft.LoraConfig` that say which layers of `base` get an adapter.

    Layers that learn nothing from rows of text get none: those that no gradient reaches, those of towers for sound,
    and, without `adapts_vision`, those of towers for images and of projectors. Nor do routers of experts, unless a list
    of target modules names them. Raises Fault for target modules that the base lacks.
    """
    wanted = targets.resolve(base, target_modules)
    experts = targets.expert_tensors(base) if target_modules == "mlp" else []
    named = isinstance(target_modules, list)
    left_out = _left_out(base, wanted, named=named, alone=not experts, adapts_vision=adapts_vision)
    return {
        "target_modules": wanted,
        "exclude_modules": left_out,
        **({"target_parameters": experts} if experts else {}),
    }


def _left_out(base: Any, wanted: str | list[str], *, named: bool, alone: bool, adapts_vision: bool) -> str | None:
    """A regular expression for those of the wanted modules that get no adapter; None where all get one.

    wanted: as `targets.resolve` gives it. named: whether the user has named each of them. alone: whether nothing else
    gets an adapter. Raises Fault where none would get one.
    """
    found, learning = parts.of(base), passage.learning(base)
    adapted = {Tower.LANGUAGE, *((Tower.VISION, Tower.PROJECTOR) if adapts_vision else ())}
    linear = targets.linear_names(base)
    hit = [name for name in linear if isinstance(wanted, str) or _matches(name, wanted)]
    outside = [name for name in hit if found[name].tower not in adapted]
    by_text = [name for name in hit if found[name].tower is Tower.LANGUAGE]
    idle = [name for name in by_text if learning is not None and name not in learning]
    fused = Part(Tower.LANGUAGE, Kind.EXPERTS) in found.values()  # PEFT matches them by names of no module
    if hit and len(outside) + len(idle) == len(hit) and alone and not fused:
        others = " and ".join(sorted({str(found[name].tower) for name in outside}))
        what = f"layers of {others} alone, which no row of text passes through" if outside else (
            "layers that no gradient of a row of text reaches")  # fmt: skip
        raise Fault(Reason.CONFIG, f"target_modules {wanted} match {what}",
                    "name layers of the language part, or use all-linear")  # fmt: skip
    routers = [name for name in hit if found[name] == Part(Tower.LANGUAGE, Kind.ROUTER)] if not named else []
    towers = [name for name in parts.roots(found) if found[name].tower not in adapted] if outside else []
    roots = [*towers, *routers, *(name for name in idle if name not in routers)]
    if adapts_vision and not isinstance(wanted, str):
        # A name of the tower's attention may be that of the convolution which embeds patches too
        seen = [name for name, part in found.items() if part.tower is not Tower.LANGUAGE and _matches(name, wanted)]
        roots += sorted(set(seen) - set(linear))
    return "|".join(rf"{re.escape(name)}(\..*)?" for name in roots) or None


def _matches(name: str, wanted: list[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in wanted)
