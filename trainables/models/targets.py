"""Turns attention, mlp, all-linear or a list into names of modules that exist in the base."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.models import parts
from trainables.models.parts import MLP_LEAVES, Kind, Part, Tower, kind_of_name
from tuner.contract import Fault, Reason

KEYWORDS = ("all-linear", "attention", "mlp")
"""Values of `target_modules` that stand for names of layers."""


@dataclass(frozen=True)
class Names:
    """Names that a list of target modules may have on a base."""

    modules: list[str]
    """Of all modules, and of layers of experts that are parts of one tensor."""
    linear: list[str]
    """Last names of all linear layers."""
    head: str | None
    """The output layer's."""
    refused: list[str]
    """Last names of layers that PEFT refuses."""
    together: list[list[str]]
    """Names of expert layers that are parts of one tensor, so that PEFT takes all of them or none."""

    @classmethod
    def of(cls, model: Any) -> Names:
        """Those of a base, with or without values."""
        fused, linear = _fused(model), linear_names(model)
        return cls(
            modules=[*(name for name, _ in model.named_modules()), *fused],
            linear=sorted({_leaf(name) for name in linear}),
            head=_output_name(model),
            refused=sorted(_refused(model, [name for name, _ in model.named_modules()])),
            together=[[old for old in fused if fused[old] == new] for new in sorted(set(fused.values()))],
        )

    def require(self, wanted: list[str]) -> None:
        """Raises Fault for a name that matches nothing, with the nearest one, for the output layer, and for what PEFT
        refuses."""
        for target in wanted:
            if not any(_matches(name, target) for name in self.modules):
                near = difflib.get_close_matches(target, self.linear, n=1, cutoff=0.4)
                raise Fault(Reason.CONFIG, f"target_modules {target!r} matches nothing: the base has {self.told}",
                            f"did you mean {near[0]!r}?" if near else "use all-linear, attention or mlp")  # fmt: skip
            if _leaf(target) in self.refused:
                raise Fault(Reason.CONFIG, f"target_modules has {target!r}, which PEFT refuses on this base: a kernel "
                            "reads the weight itself and would bypass the adapter",
                            f"take {target!r} out of the list, or use all-linear, which leaves it out")  # fmt: skip
        head = self.head
        if head is not None and any(_matches(head, target) for target in wanted):
            raise Fault(Reason.CONFIG, f"target_modules contains the output layer {head!r}, whose adapter the loss of "
                        "SFTTrainer would bypass and never train", f"remove {head!r} from target_modules")  # fmt: skip
        for names in self.together:
            have = [name for name in names if any(_leaf(target) == name for target in wanted)]
            if have and len(have) < len(names):
                lack = ", ".join(name for name in names if name not in have)
                raise Fault(Reason.CONFIG, f"target_modules has {', '.join(have)} and not {lack}: the base has both in "
                            "one tensor for all experts", f"name {lack} too, or neither")  # fmt: skip

    @property
    def told(self) -> str:
        """The last names of linear layers, for a message."""
        return ", ".join(self.linear) or "no linear layers"


def resolve(model: Any, wanted: str | list[str]) -> str | list[str]:
    """The value of PEFT's `target_modules` for what is `wanted`.

    Raises Fault for a name that matches nothing, with the nearest one, for the output layer, and for what PEFT refuses.
    """
    if not isinstance(wanted, str):
        Names.of(model).require(wanted)
        return list(wanted)
    every, fused = linear_names(model), _fused(model)
    refused = _refused(model, every)
    kinds = parts.of(model)
    # PEFT would take the name of a router (AFMoE's gate) for that of a tensor, and it excludes no tensors
    names = [name for name in every if _leaf(name) not in refused and kinds[name].kind is not Kind.ROUTER]
    if wanted == "all-linear":
        # PEFT's own all-linear would fail, or put an adapter on the routers too
        return [*_suffixes(names, every), *fused] if refused or _has_routers(model) else "all-linear"
    found = _suffixes([name for name in names if kind_of_name(name) == wanted], every)
    if wanted == "mlp":
        found += [name for name in fused if name in MLP_LEAVES and name not in found]
    if not found and not (wanted == "mlp" and expert_tensors(model)):
        raise Fault(Reason.CONFIG, f"target_modules {wanted} matches nothing: the base has {Names.of(model).told}",
                    "give the names as a list, or use all-linear")  # fmt: skip
    return found


def expert_tensors(model: Any) -> list[str]:
    """Names for PEFT's `target_parameters` of the tensors with all experts of a layer; none where PEFT takes names of
    modules for them."""
    if _mapped(model):
        return []
    found = parts.of(model)
    names = [
        name for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and found[name.rpartition(".")[0]] == Part(Tower.LANGUAGE, Kind.EXPERTS)
    ]  # fmt: skip
    return list(dict.fromkeys(".".join(name.split(".")[-2:]) for name in names))


def reach_tensors(model: Any, targeted: Mapping[str, Any]) -> bool:
    """Whether PEFT puts an adapter on tensors of experts. targeted: the arguments of `peft.LoraConfig` that say which
    layers of the model get one."""
    wanted = targeted["target_modules"]
    return bool(targeted.get("target_parameters")) or (not isinstance(wanted, str) and holds(_fused(model), wanted))


def holds(fused: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether a list of target modules has the name of an expert layer that is a part of one tensor."""
    return not {_leaf(target) for target in wanted}.isdisjoint(fused)


def linear_names(model: Any) -> list[str]:
    """Names of all linear layers but the output layer: what all-linear means, and all that an adapter can be put on.

    As in PEFT, derived classes count (Falcon's, and those of 4 and 8 bits).
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = _output_name(model)
    return [name for name, module in model.named_modules() if isinstance(module, Linear | Conv1D) and name != head]


def _refused(model: Any, names: list[str]) -> set[str]:
    """Last names of those layers that PEFT refuses on this model (`out_proj` of a Mamba, whose kernel reads the weight
    and would bypass the adapter)."""
    from peft import LoraConfig
    from peft.tuners import tuners_utils

    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", lambda *_: None)
    config, refused = LoraConfig(), set()
    for leaf in {_leaf(name) for name in names}:
        try:
            check(config, model, leaf)
        except ValueError:
            refused.add(leaf)
    return refused


def _fused(model: Any) -> dict[str, str]:
    """By name of an expert layer that PEFT takes for a part of one tensor: the name of the tensor. This base has all
    experts of a layer in that tensor, and no layers of these names."""
    held = {_leaf(name) for name, _ in model.named_parameters()}
    return {old: new for old, new in sorted(_mapped(model).items()) if new in held}


def _has_routers(model: Any) -> bool:
    """Whether PEFT's all-linear would put adapters on routers, which are tensors of their own here."""
    routers = tuple(f".{new}" for new in _mapped(model).values() if "." in new)
    return any(name.endswith(routers) for name, _ in model.named_parameters()) if routers else False


def _mapped(model: Any) -> dict[str, str]:
    """By old name of a layer: the tensor that PEFT takes it for, in the family of this model."""
    from peft.utils import transformers_weight_conversion as conversion

    kinds = getattr(conversion, "_MODEL_TO_CONVERSION_PATTERN", {})
    names = getattr(conversion, "_MOE_TARGET_MODULE_MAPPING", {})
    return names.get(kinds.get(getattr(getattr(model, "config", None), "model_type", None))) or {}


def _output_name(model: Any) -> str | None:
    """The name of the output layer."""
    head = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is head), None)


def _suffixes(mine: list[str], every: list[str]) -> list[str]:
    """Suffixes of the names in `mine`: the last name, or the last two where a name of `every` that is not in there has
    the same last name."""
    own = set(mine)
    others = {_leaf(name) for name in every if name not in own}
    return list(dict.fromkeys(_suffix(name, others) for name in mine))


def _suffix(name: str, others: set[str]) -> str:
    return _leaf(name) if _leaf(name) not in others else ".".join(name.split(".")[-2:])


def _leaf(name: str) -> str:
    """The last name of a layer."""
    return name.rpartition(".")[2]


def _matches(name: str, target: str) -> bool:
    """Whether PEFT takes a module for one that `target` names."""
    return name == target or name.endswith(f".{target}")
