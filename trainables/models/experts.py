"""Reads from a config.json how many experts a base has, and in which layers. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NUMBER = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk", "moe_top_k")
_INTERMEDIATE = ("moe_intermediate_size", "expert_ffn_hidden_size")
_SHARED_SIZE = ("shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size")
_SHARED_NUMBER = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
"""Keys of config.json that mean the same in different families."""


@dataclass(frozen=True)
class Experts:
    """The experts in a base's MLPs."""

    layers: int
    """Layers that have experts."""
    number: int
    """Experts of a layer that its router chooses from."""
    chosen: int
    """Experts that a token passes."""
    intermediate: int
    """Features within an expert."""
    shared: int = 0
    """Features within the experts of a layer that every token passes, of all of them together."""


def experts_of(config: Mapping[str, Any], layers: int) -> Experts | None:
    """The experts in a config.json with `layers` layers; None where it has none.

    Raises KeyError, TypeError or ValueError where it has some and does not say how large they are.
    """
    number = _first(config, _NUMBER)
    if number is None or int(number) <= 1:
        return None
    chosen, intermediate = _first(config, _CHOSEN), _first(config, _INTERMEDIATE) or config["intermediate_size"]
    if chosen is None:
        raise KeyError(_CHOSEN[0])
    shared = _first(config, _SHARED_SIZE)
    if shared is None:
        shared = int(_first(config, _SHARED_NUMBER) or 0) * int(intermediate)
    with_experts = sum(_has_experts(config, layer) for layer in range(layers))
    return Experts(with_experts, int(number), int(chosen), int(intermediate), int(shared))


def _has_experts(config: Mapping[str, Any], layer: int) -> bool:
    """Whether the MLP of a layer, counted from 0, has experts."""
    kinds = config.get("mlp_layer_types")
    if isinstance(kinds, list) and layer < len(kinds):
        return kinds[layer] != "dense"
    if layer < int(config.get("first_k_dense_replace") or 0) or layer in (config.get("mlp_only_layers") or ()):
        return False
    if period := int(config.get("expert_layer_period") or 0):
        return layer % period == int(config.get("expert_layer_offset") or 0)
    return (layer + 1) % int(config.get("decoder_sparse_step") or 1) == 0


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The value of the first of `keys` that the config has; None where it has none of them."""
    return next((config[key] for key in keys if config.get(key) is not None), None)
