"""Checks that a checkpoint has every weight of the model that is made from it.

Transformers draws a weight that the checkpoint lacks at random, in each process anew, and only logs it. So every load
is checked by `require_complete`, with what transformers reports of it. Torch-free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.models.checkpoint import listed
from tuner.contract import InputError

_LEFT_BY = {
    "base_layer": "an adapter that was not merged",
    "module": "DataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
}
"""Components of tensor names, and what adds them. Only messages use it: what is refused does not depend on it."""


@dataclass(frozen=True)
class Loading:
    """What a load reported."""

    model: str
    """The name of the model's class."""
    expected: int
    """The number of its weights; 0: not known."""
    missing: Collection[str] = ()
    """Weights of the model that the checkpoint lacks, without tied ones and buffers that are never saved."""
    unexpected: Collection[str] = ()
    """Tensors of the checkpoint that the model does not have."""
    mismatched: Collection[tuple[str, tuple[int, ...], tuple[int, ...]]] = ()
    """Name, shape in the checkpoint, shape in the model."""
    unconverted: Collection[str] = ()
    """Weights that could not be made from several tensors of the checkpoint."""


def require_complete(loading: Loading, config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Raises InputError where a weight would be random; else gives notes for the user.

    config: the content of config.json. where: the base, for the message.
    """
    missing = sorted({*loading.missing, *loading.unconverted})
    if loading.mismatched and not missing:
        name, has, wants = sorted(loading.mismatched)[0]
        raise InputError(
            f"{len(loading.mismatched)} of {loading.expected} weights have another shape than config.json gives them: "
            f"{name} is {_shape(has)}, not {_shape(wants)}",
            where=where,
            expected=f"a config.json and weights that belong together, of a {loading.model}",
            remedy="copy or download both again",
        )
    if missing:
        cause, remedy = _cause(missing, loading, config)
        raise InputError(
            f"the checkpoint lacks {_count(len(missing), loading.expected)} of a {loading.model}, which would be made "
            f"up at random: {listed(missing)}" + (f"; {cause}" if cause else ""),
            where=where,
            expected="a checkpoint with every weight of the model",
            remedy=remedy,
        )
    return (*_unused(loading), *_another_class(loading, config))


def _unused(loading: Loading) -> tuple[str, ...]:
    unused = sorted(loading.unexpected)
    if not unused:
        return ()
    return (f"{len(unused)} tensors of the base's checkpoint have no place in a {loading.model} and are left out: "
            f"{listed(unused)}",)  # fmt: skip


def _another_class(loading: Loading, config: Mapping[str, Any]) -> tuple[str, ...]:
    said = _architectures(config)
    if not said or loading.model in said:
        return ()
    return (f"config.json calls the base a {said[0]}: it is trained as a {loading.model}",)


def _cause(missing: list[str], loading: Loading, config: Mapping[str, Any]) -> tuple[str, str]:
    """The likely cause ("" where there is none), and what to do."""
    quantized = (config.get("quantization_config") or {}).get("quant_method")
    if quantized and loading.unexpected:
        return (f"it is quantized ({quantized}) in a way that is not read here",
                "take the model as it was before it was quantized, and set model.quantization to nf4")  # fmt: skip
    adapted = [name for name in sorted(loading.unexpected) if "lora_" in name]
    if adapted:
        return (f"it holds an adapter that was not merged ({adapted[0]})",
                "merge the adapter before saving (merge_and_unload), or take its base")  # fmt: skip
    foreign = _foreign(missing, loading.unexpected)
    if foreign:
        by = _LEFT_BY.get(foreign.rpartition(".")[2])
        left = f" ({by} leaves that)" if by else ""
        return (f"its names have {foreign!r} in them, which the model's do not{left}",
                f"save it again without {foreign!r} in the names")  # fmt: skip
    said = _architectures(config)
    if said and loading.model not in said:
        extra = f", and has {listed(sorted(loading.unexpected))} instead" if loading.unexpected else ""
        return f"config.json calls it a {said[0]}{extra}", f"take the {loading.model} that it was made from"
    if loading.unexpected:
        return (f"it has {listed(sorted(loading.unexpected))}, which a {loading.model} does not have",
                "take the config.json that belongs to the weights")  # fmt: skip
    return "", "a file of it, or part of one, was lost: copy or download it again"


def _foreign(missing: list[str], unexpected: Collection[str]) -> str:
    """The components that have to be removed from the checkpoint's names to make them the model's; "" where that is not
    the cause."""
    wanted = set(missing)
    known = {part for name in missing for part in name.split(".")}
    taken: Counter[str] = Counter()
    for name in unexpected:
        parts = name.split(".")
        others = [part for part in parts if part not in known]
        if others and ".".join(part for part in parts if part in known) in wanted:
            taken[".".join(dict.fromkeys(others))] += 1
            continue
        start = next((at for at in range(1, len(parts)) if ".".join(parts[at:]) in wanted), None)
        if start is not None:
            taken[".".join(parts[:start])] += 1
    found = taken.most_common(1)
    return found[0][0] if found and 2 * found[0][1] >= len(missing) else ""


def _architectures(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _count(missing: int, expected: int) -> str:
    if expected:
        return f"{missing} of the {expected} weights"
    return "a weight" if missing == 1 else f"{missing} weights"


def _shape(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes)) or "one number"
