"""Finds out which layers of a base adapters can be put on, and checks values of `target_modules` against that.

It is found out on a base without values, before anything trains (inspecting.py); the check costs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from trainables.models import parts, tensor_adapters
from trainables.models.checkpoint import listed
from trainables.models.parts import Kind, Part, Tower
from trainables.models.targets import KEYWORDS, Names, holds, linear_names, reach_tensors
from trainables.settings.train import TrainSettings
from tuner.contract import Fault, InputError, Reason

FACT = "target_modules"
"""The preparation's fact that has it."""

NO_TEXT = ", which no text passes through"
"""The end of a sentence about layers that rows with images reach."""
_PREFIX = "base_model.model."
"""What PEFT puts before the names of the base's modules."""
_LAYER = re.compile(r"(?<=\.)\d+(?=\.|$)")
"""Matches the number of a layer in a name."""


def of(shape: Any) -> dict[str, Any]:
    """What values of `target_modules` mean on a base, as JSON. shape: the base, with or without values.

    names: as `Names`, with all layers of a name as one. keywords: by keyword, what is wrong with it and what to do, and
    the layers that it leaves out. tensors: the keywords that reach tensors of experts. refused: the settings that PEFT
    refuses there.
    """
    from trainables.models import lora

    found: dict[str, dict[str, Any]] = {}
    names, tensors = Names.of(shape), []
    for word in reversed(KEYWORDS):  # all-linear last: it changes the base
        try:
            targeted = lora.targeted(shape, word)
            tensors += [word] if reach_tensors(shape, targeted) else []
            found[word] = {"left_out": _left_out(shape, targeted) if word == "all-linear" else []}
        except Fault as fault:
            found[word] = {"what": fault.message, "remedy": fault.remedy}
    told = {"names": asdict(replace(names, modules=_collapsed(names.modules))), "keywords": found}
    return {**told, "tensors": tensors, "refused": list(tensor_adapters.refused())}


def check_experts(found: Mapping[str, Any] | None, recipe: TrainSettings) -> None:
    """Checks the recipe's settings where its adapter is on tensors of experts. found: as `of` gives it; None or empty
    where it is not known. Raises InputError for settings that PEFT refuses there; a drawn trial with such ends alone.
    """
    if not found or "tensors" not in found:  # rows prepared by an earlier version
        return
    own, together = recipe.target_modules, [name for group in found["names"]["together"] for name in group]
    reaches = own in found["tensors"] if isinstance(own, str) else holds(together, own)
    fault = tensor_adapters.fault(recipe, found["refused"]) if reaches else None
    if fault is not None:
        raise InputError(fault.message, where="train", remedy=fault.remedy)


def check_values(found: Mapping[str, Any] | None, recipe: str | list[str], drawn: Sequence[Any]) -> tuple[str, ...]:
    """Checks values of `target_modules`. found: as `of` gives it; None or empty where it is not known.

    recipe: the settings' value. drawn: those of the space. Gives a note where all-linear leaves layers out. Raises
    InputError for a value that the base has no layers for.
    """
    if not found:
        return ()
    names = Names(**found["names"])
    for value in [recipe, *(value for value in drawn if value != recipe)]:
        fault = _fault(value, names, found["keywords"])
        if fault is not None and value == recipe:
            raise InputError(fault.message, where="train.target_modules", remedy=fault.remedy)
        if fault is not None:
            instead = f"leave {value} out of the space; a shipped one can be copied into the search file"
            raise InputError(fault.message, where="search.space", expected="values that the base has layers for",
                             remedy=instead if isinstance(value, str) else fault.remedy)  # fmt: skip
    left_out = found["keywords"]["all-linear"].get("left_out") if "all-linear" in (recipe, *drawn) else ()
    return tuple(left_out or ())


def _fault(value: Any, names: Names, keywords: Mapping[str, Mapping[str, Any]]) -> Fault | None:
    """What is wrong with a value; None where it can be used."""
    if isinstance(value, str):
        said = keywords.get(value, {})
        return Fault(Reason.CONFIG, said["what"], said["remedy"]) if "what" in said else None
    try:
        names.require(_collapsed(value))
    except Fault as fault:
        return fault
    return None


def _left_out(shape: Any, targeted: Mapping[str, Any]) -> list[str]:
    """A sentence for each kind of layer that all-linear puts no adapter on. Puts one on the others.

    targeted: the arguments of `peft.LoraConfig` that say which layers get one. Raises Fault where PEFT refuses them.
    """
    from peft import LoraConfig, get_peft_model

    from trainables.models import passage

    found, names, refused = parts.of(shape), linear_names(shape), set(Names.of(shape).refused)
    learning = passage.learning(shape)
    experts = tuple(name for name, part in found.items() if part.kind is Kind.EXPERTS)
    try:
        model = get_peft_model(shape, LoraConfig(r=1, task_type="CAUSAL_LM", **targeted))
    except ValueError as error:
        raise Fault(Reason.CONFIG, f"target_modules all-linear: {error}", "name layers in a list") from None
    adapted = {name.rpartition(".lora_A")[0].removeprefix(_PREFIX) for name, _ in model.named_modules()}
    reasons: dict[str, list[str]] = {}
    for name in names:
        if name not in adapted:
            idle = learning is not None and name not in learning
            reasons.setdefault(_reason(name, found[name], refused, idle=idle), []).append(name)
    told = [f"all-linear leaves out {_counted(layers)}: {reason}" for reason, layers in reasons.items()]
    if experts and not any(name.startswith(experts) for name in adapted):
        told.append("all-linear leaves out the experts: all of a layer are one tensor, which PEFT reaches by mlp alone")
    return told


def _reason(name: str, part: Part, refused: set[str], *, idle: bool) -> str:
    """Why a linear layer of this part gets no adapter. idle: whether no gradient reaches it."""
    if part.tower is not Tower.LANGUAGE:
        return f"{part.tower}{NO_TEXT}"
    if name.rpartition(".")[2] in refused:
        return "PEFT refuses them on this base, whose kernel would bypass the adapter"
    if part.kind is Kind.ROUTER:
        return "they weigh the experts"
    if idle:
        return "no gradient of a row of text reaches them"
    return "PEFT takes their names for those of the experts"


def _counted(layers: Sequence[str]) -> str:
    """ "24 layers (out_proj)"."""
    names = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    return f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'} ({listed(names, 4)})"


def _collapsed(names: Iterable[str]) -> list[str]:
    """The names with `*` for the number of a layer, each once."""
    return list(dict.fromkeys(_LAYER.sub("*", name) for name in names))
