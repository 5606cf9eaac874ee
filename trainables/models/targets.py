"""Turns attention, mlp, all-linear or a list into names of modules that exist in the base."""

from __future__ import annotations

import difflib
from typing import Any

from trainables.models.parts import MLP_LEAVES, kind_of_name
from tuner.contract import Fault, Reason


def resolve(model: Any, wanted: str | list[str]) -> str | list[str]:
    """The value of PEFT's `target_modules` for what is `wanted`.

    Raises Fault for a name that matches nothing, with the nearest one, and for the output layer.
    """
    if wanted == "all-linear":
        return _all_linear(model)
    names, fused = linear_names(model), _fused(model)
    if isinstance(wanted, str):
        found = _group(names, wanted)
        if wanted == "mlp":
            found += [name for name in fused if name in MLP_LEAVES and name not in found]
        if not found:
            raise Fault(Reason.CONFIG, f"target_modules {wanted} matches nothing: the base has {_leaves(names)}",
                        "give the names as a list, or use all-linear")  # fmt: skip
        return found
    every = [*(name for name, _ in model.named_modules()), *fused]
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in every):
            near = difflib.get_close_matches(target, {name.rpartition(".")[2] for name in names}, n=1, cutoff=0.4)
            raise Fault(Reason.CONFIG, f"target_modules {target!r} matches nothing: the base has {_leaves(names)}",
                        f"did you mean {near[0]!r}?" if near else "use all-linear, attention or mlp")  # fmt: skip
    head = _output_name(model)
    if any(head is not None and (head == target or head.endswith(f".{target}")) for target in wanted):
        raise Fault(Reason.CONFIG, f"target_modules contains the output layer {head!r}, whose adapter the loss of "
                    "SFTTrainer would bypass and never train", f"remove {head!r} from target_modules")  # fmt: skip
    return list(wanted)


def linear_names(model: Any) -> list[str]:
    """Names of all linear layers but the output layer: what all-linear means, and all that an adapter can be put on.

    As in PEFT, derived classes count (Falcon's, and those of 4 and 8 bits).
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = _output_name(model)
    return [name for name, module in model.named_modules() if isinstance(module, Linear | Conv1D) and name != head]


def _all_linear(model: Any) -> str | list[str]:
    """ "all-linear", or a list of names where PEFT refuses some layers (`out_proj` of a Mamba, whose kernel reads the
    weight and would bypass the adapter)."""
    names = linear_names(model)
    refused = {name for name in names if _refused(model, name.rpartition(".")[2])}
    return [name for name in names if name not in refused] if refused else "all-linear"


def _refused(model: Any, leaf: str) -> bool:
    """Whether PEFT refuses layers whose last name is `leaf`, on this model."""
    from peft import LoraConfig
    from peft.tuners import tuners_utils

    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", lambda *_: None)
    try:
        check(LoraConfig(), model, leaf)
    except ValueError:
        return True
    return False


def _fused(model: Any) -> list[str]:
    """Names of expert layers that PEFT takes for parts of one tensor: this base has all experts in that tensor, and no
    layers of these names."""
    from peft.utils import transformers_weight_conversion as conversion

    kinds = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {})
    names = getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {})
    mapped = names.get(kinds.get(getattr(getattr(model, "config", None), "model_type", None))) or {}
    held = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    return sorted(old for old, new in mapped.items() if new in held)


def _output_name(model: Any) -> str | None:
    """The name of the output layer."""
    head = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is head), None)


def _group(names: list[str], wanted: str) -> list[str]:
    """Suffixes of a group's modules: the last name, or the last two where another group has the same last name."""
    mine = [name for name in names if kind_of_name(name) == wanted]
    others = {name.rpartition(".")[2] for name in names if kind_of_name(name) != wanted}
    suffixes = []
    for name in mine:
        parts = name.split(".")
        suffix = parts[-1] if parts[-1] not in others else ".".join(parts[-2:])
        if suffix not in suffixes:
            suffixes.append(suffix)
    return suffixes


def _leaves(names: list[str]) -> str:
    """The last names of layers, for a message."""
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "no linear layers"
