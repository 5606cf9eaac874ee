"""Tells which part of a model each of its modules belongs to, by asking the model.

Transformers says of a class which module embeds words (`get_input_embeddings`), which one is the decoder
(`get_decoder`), which ones encode images and sound (`get_encoder`, `input_modalities`, the configs within the config),
and which classes are attention and routers (`can_record_outputs`). Only what it leaves open is told by the modules'
names. Needs no weights: a model on the meta device has the same parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trainables.models.counting import human, size

Model = Any


class Tower(StrEnum):
    """A part of a model by what it takes in."""

    LANGUAGE = "language"
    """Takes tokens."""
    VISION = "vision"
    """Takes images or frames of a video."""
    AUDIO = "audio"
    """Takes sound."""
    PROJECTOR = "projector"
    """Brings what a tower gives into the space of the tokens' embeddings."""


class Kind(StrEnum):
    """A group of layers within a tower."""

    ATTENTION = "attention"
    MLP = "mlp"
    EXPERTS = "experts"
    """Those that a router chooses among; shared experts, which see every token, are MLP."""
    ROUTER = "router"
    """Weighs the experts, token by token."""
    OTHER = "other"


@dataclass(frozen=True)
class Part:
    """The part of a model that a module belongs to."""

    tower: Tower = Tower.LANGUAGE
    kind: Kind = Kind.OTHER

    def __str__(self) -> str:
        return f"{self.tower}: {self.kind}"


_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "feed_forward", "feedforward", "moe", "experts")
_ATTENTION_LEAVES = frozenset(
    ["q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv", "W_pack"]
)
MLP_LEAVES = frozenset(
    ["gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "fc_in", "fc_out", "c_fc", "w1", "w2", "w3"]
)
"""Names that tell the group of a layer which is in no module called attention or mlp (OPT's fc1)."""
_EMBEDDINGS = ("get_input_embeddings", "get_output_embeddings")
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Names in a config for the number of experts that a router chooses among."""
_MODALITIES = {"image": Tower.VISION, "video": Tower.VISION, "audio": Tower.AUDIO}
"""By transformers' name of a modality."""
_SOUNDS = ("audio", "speech", "sound")
"""Words in the name of a config within the config, or of a main input, of a tower that takes sound."""


def of(model: Model) -> dict[str, Part]:
    """By name of every module: its part. The model itself has the name ""."""
    kinds = _kinds(model)
    return {name: Part(tower, kinds[name]) for name, tower in _towers(model).items()}


def towers(found: Mapping[str, Part]) -> tuple[Tower, ...]:
    """The towers that a model has, language first. found: its parts."""
    held = {part.tower for part in found.values()}
    return tuple(tower for tower in Tower if tower in held)


def roots(found: Mapping[str, Part]) -> list[str]:
    """Names of the outermost modules of towers other than language: no text passes through them and what they hold.

    found: the parts of a model.
    """
    return [
        name
        for name, part in found.items()
        if part.tower is not Tower.LANGUAGE and found[_parent(name)].tower is Tower.LANGUAGE
    ]


def trained(model: Model) -> dict[str, dict[str, int]]:
    """By tower, then by kind: the number of trainable parameters. A tower without one is there, empty. model: with its
    adapter."""
    sums = Counter[Part]()
    found = of(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sums[found[name.rpartition(".")[0]]] += size(parameter)
    return {
        str(tower): {str(kind): sums[Part(tower, kind)] for kind in Kind if sums[Part(tower, kind)]}
        for tower in towers(found)
    }


def told(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Counts by tower and kind for people: "language: attention 4.2M, experts 61.0M; vision: none"."""
    return "; ".join(
        f"{tower}: " + (", ".join(f"{kind} {human(number)}" for kind, number in kinds.items()) or "none")
        for tower, kinds in counts.items()
    )


def kind_of_name(name: str) -> str:
    """The group of a linear layer by its name alone: "attention", "mlp", or "" where it is in neither."""
    *parents, leaf = name.split(".")
    for parent in reversed(parents):
        if any(word in parent.lower() for word in _ATTENTION):
            return "attention"
        if any(word in parent.lower() for word in _MLP):
            return "mlp"
    if leaf in _ATTENTION_LEAVES:
        return "attention"
    return "mlp" if leaf in MLP_LEAVES else ""


def _towers(model: Model) -> dict[str, Tower]:
    modules = dict(model.named_modules())
    names = {id(module): name for name, module in modules.items()}
    words, head = (names.get(id(getattr(model, ask, lambda: None)())) for ask in _EMBEDDINGS)
    decoder = names.get(id(model.get_decoder())) if hasattr(model, "get_decoder") else ""
    decoder = "" if decoder is None else decoder
    spine = {*_upward(words or ""), *_upward(decoder)}  # what holds the decoder and the embeddings is of no tower
    encoders = _encoders(model, modules, names, spine)
    holders = {above for name in encoders for above in _upward(name)} - spine
    composite = bool(encoders) or _modalities(model) != {"text"}
    found: dict[str, Tower] = {}
    for name in modules:
        above = found.get(_parent(name), Tower.LANGUAGE)
        if name in encoders:
            found[name] = encoders[name]
        elif above is not Tower.LANGUAGE:
            found[name] = above
        elif name in spine or name in (words, head) or not composite:
            found[name] = Tower.LANGUAGE
        else:
            outside = bool(decoder) and not name.startswith(f"{decoder}.")
            found[name] = Tower.PROJECTOR if outside or name in holders else Tower.LANGUAGE
    return found


def _encoders(
    model: Model, modules: Mapping[str, Any], names: Mapping[int, str], spine: Collection[str]
) -> dict[str, Tower]:
    """By name: the towers' outermost modules. spine: names of modules that are of no tower."""
    found: dict[str, Tower] = {}
    for modality, tower in _MODALITIES.items():
        name = names.get(id(_encoder(model, modality)))
        if name is not None and name not in spine:
            found.setdefault(name, tower)
    config = getattr(model, "config", None)
    text = config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
    for name, module in modules.items():
        own = getattr(module, "config", None)
        if name in spine or not hasattr(module, "input_modalities") or any(up in found for up in _upward(name)):
            continue
        if own is not None and type(own) not in (type(text), type(config)):
            found[name] = _tower(module, own, config)
    return found


def _encoder(model: Model, modality: str) -> Any:
    """The module that encodes a modality; the model itself, or a part of its spine, where there is none."""
    try:
        return model.get_encoder(modality=modality)
    except (AttributeError, TypeError):
        return None


def _tower(module: Any, own: Any, config: Any) -> Tower:
    """The tower that `module` is, by its config's name within the model's config, then by its inputs.

    own: the module's config. config: the model's.
    """
    key = next((key for key in getattr(config, "sub_configs", {}) if getattr(config, key, None) is own), "")
    for said in (key, str(getattr(module, "main_input_name", ""))):
        if any(word in said for word in _SOUNDS):
            return Tower.AUDIO
    takes = {_MODALITIES[modality] for modality in _modalities(module) if modality in _MODALITIES}
    return Tower.AUDIO if takes == {Tower.AUDIO} else Tower.VISION


def _modalities(module: Any) -> set[str]:
    said = getattr(module, "input_modalities", "text")
    return {said} if isinstance(said, str) else set(said)


def _kinds(model: Model) -> dict[str, Kind]:
    modules = dict(model.named_modules())
    routing, attending = _recorded(model, "router_logits"), _recorded(model, "attentions")
    mixtures = {_parent(name) for name, module in modules.items() if _holds_experts(name, module)}
    found: dict[str, Kind] = {}
    for name, module in modules.items():
        above = found.get(_parent(name), Kind.OTHER)
        kinds = {cls.__name__ for cls in type(module).__mro__}
        if above in (Kind.EXPERTS, Kind.ROUTER):
            found[name] = above
        elif _holds_experts(name, module):
            found[name] = Kind.EXPERTS
        elif name not in mixtures and (kinds & routing or (_parent(name) in mixtures and _weighs(name, module, model))):
            found[name] = Kind.ROUTER
        elif kinds & attending and name not in mixtures:
            found[name] = Kind.ATTENTION
        else:
            found[name] = Kind(kind_of_name(name) or (kind_of_name(f"{name}.") if name else "") or above)
    return found


def _holds_experts(name: str, module: Any) -> bool:
    """Whether a module is all experts of a layer: a list of them, or one with all their weights in a tensor."""
    return name.rpartition(".")[2] == "experts" or type(module).__name__.endswith("Experts")


def _weighs(name: str, module: Any, model: Model) -> bool:
    """Whether a module beside experts gives a weight for each, or the one weight of a shared expert."""
    outputs = getattr(module, "out_features", None)
    if outputs is None:
        return name.rpartition(".")[2] in ("gate", "router")
    text = model.config.get_text_config()
    return outputs == 1 or outputs in {getattr(text, key, None) for key in _COUNTS}


def _recorded(model: Model, output: str) -> set[str]:
    """Names of the classes whose output transformers records as `output` ("attentions", "router_logits")."""
    found = set()
    for module in model.modules():
        said = getattr(module, "_can_record_outputs", None)
        asked = said.get(output, ()) if isinstance(said, dict) else ()
        for recorder in asked if isinstance(asked, list | tuple) else (asked,):
            cls = getattr(recorder, "target_class", recorder)
            found.add(cls if isinstance(cls, str) else getattr(cls, "__name__", ""))
    return found - {"", "Linear", "Module"}


def _upward(name: str) -> Iterator[str]:
    """A module's name, and the names of the modules that hold it, up to the model's ""."""
    while name:
        yield name
        name = _parent(name)
    yield ""


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
