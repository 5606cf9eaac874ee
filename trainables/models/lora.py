"""Makes a LoraConfig of the settings."""

from __future__ import annotations

import re
from typing import Any

from trainables.models import parts, passage, targets
from trainables.models.parts import Kind, Part, Tower
from trainables.settings import Settings
from tuner.contract import Fault, Reason


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
        **targeted(base, train.target_modules),
        use_dora=train.use_dora,
        init_lora_weights=True if train.init_lora_weights == "true" else train.init_lora_weights,
        revision=settings.model.model_revision,
    )


def targeted(base: Any, target_modules: str | list[str]) -> dict[str, Any]:
    """The arguments of `peft.LoraConfig` that say which layers of `base` get an adapter.

    Layers that learn nothing from rows of text get none: those of towers for images and sound, of projectors, and those
    that no gradient reaches. Nor do routers of experts, unless a list of target modules names them. Raises Fault for
    target modules that the base lacks.
    """
    wanted = targets.resolve(base, target_modules)
    experts = targets.expert_tensors(base) if target_modules == "mlp" else []
    left_out = _left_out(base, wanted, named=isinstance(target_modules, list), alone=not experts)
    return {
        "target_modules": wanted,
        "exclude_modules": left_out,
        **({"target_parameters": experts} if experts else {}),
    }


def _left_out(base: Any, wanted: str | list[str], *, named: bool, alone: bool) -> str | None:
    """A regular expression for those of the wanted modules that get no adapter; None where all get one.

    wanted: as `targets.resolve` gives it. named: whether the user has named each of them. alone: whether nothing else
    gets an adapter. Raises Fault where none would get one.
    """
    found, learning = parts.of(base), passage.learning(base)
    hit = [name for name in targets.linear_names(base) if isinstance(wanted, str) or _matches(name, wanted)]
    outside = [name for name in hit if found[name].tower is not Tower.LANGUAGE]
    idle = [name for name in hit if learning is not None and name not in learning and name not in outside]
    fused = Part(Tower.LANGUAGE, Kind.EXPERTS) in found.values()  # PEFT matches them by names of no module
    if hit and len(outside) + len(idle) == len(hit) and alone and not fused:
        towers = " and ".join(sorted({str(found[name].tower) for name in outside}))
        what = f"layers of {towers} alone, which no row of text passes through" if outside else (
            "layers that no gradient of a row of text reaches")  # fmt: skip
        raise Fault(Reason.CONFIG, f"target_modules {wanted} match {what}",
                    "name layers of the language part, or use all-linear")  # fmt: skip
    routers = [name for name in hit if found[name] == Part(Tower.LANGUAGE, Kind.ROUTER)] if not named else []
    roots = [*(parts.roots(found) if outside else []), *routers, *(name for name in idle if name not in routers)]
    return "|".join(rf"{re.escape(name)}(\..*)?" for name in roots) or None


def _matches(name: str, wanted: list[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in wanted)
