"""attention, mlp, all-linear or a list, to module names that exist in the base."""

from __future__ import annotations

import difflib
from typing import Any

from tuner.contract import Fault, Reason

_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "feed_forward", "feedforward", "moe", "experts")
_ATTENTION_LEAVES = frozenset(
    ["q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "W_pack"]
)
_MLP_LEAVES = frozenset(
    ["gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "fc_in", "fc_out", "c_fc", "w1", "w2", "w3"]
)
"""Names that tell by themselves, for layers that stand in no module called attention or mlp (OPT's fc1)."""


def resolve(model: Any, wanted: str | list[str]) -> str | list[str]:
    """What PEFT's `target_modules` takes. A name that matches nothing is a fault of the set-up, with the nearest."""
    if wanted == "all-linear":
        return "all-linear"
    names = linear_names(model)
    if isinstance(wanted, str):
        found = _group(names, wanted)
        if not found:
            raise Fault(Reason.CONFIG, f"target_modules {wanted} matches nothing: the base has {_leaves(names)}",
                        "give the names as a list, or use all-linear")  # fmt: skip
        return found
    every = [name for name, _ in model.named_modules()]
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
    """Every linear layer but the output's: what all-linear means, and all that an adapter may sit on."""
    kinds = ("Linear", "Linear4bit", "Linear8bitLt", "Conv1D")
    head = _output_name(model)
    return [name for name, module in model.named_modules() if type(module).__name__ in kinds and name != head]


def _output_name(model: Any) -> str | None:
    head = model.get_output_embeddings()
    return next((name for name, module in model.named_modules() if module is head), None)


def _group(names: list[str], wanted: str) -> list[str]:
    """Suffixes of the group's modules: the last name, with its parent's where another group has the same last name."""
    mine = [name for name in names if _kind(name) == wanted]
    others = {name.rpartition(".")[2] for name in names if _kind(name) != wanted}
    suffixes = []
    for name in mine:
        parts = name.split(".")
        suffix = parts[-1] if parts[-1] not in others else ".".join(parts[-2:])
        if suffix not in suffixes:
            suffixes.append(suffix)
    return suffixes


def _kind(name: str) -> str:
    *parents, leaf = name.lower().split(".")
    for parent in reversed(parents):
        if any(word in parent for word in _ATTENTION):
            return "attention"
        if any(word in parent for word in _MLP):
            return "mlp"
    leaf = name.rpartition(".")[2]
    if leaf in _ATTENTION_LEAVES:
        return "attention"
    return "mlp" if leaf in _MLP_LEAVES else ""


def _leaves(names: list[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "no linear layers"
