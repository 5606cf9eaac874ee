"""Exchanges values and sharded tensors among the processes of a group; with one process, values stay as they are.

Every process of the group has to call these functions, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed.tensor import DTensor, distribute_tensor


def broadcast(value: Any) -> Any:
    """The first process's `value`, in every process."""
    return broadcast_object_list([value])[0]


def all_gather(value: Any) -> list[Any]:
    """Every process's `value`, in the order of ranks."""
    return list(gather_object([value]))


def full_tensor(value: Any) -> Any:
    """A sharded tensor gathered to its full shape [...], in its dtype; any other value as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def full_adapter(model: Any) -> dict[str, torch.Tensor]:
    """The trainable tensors of a model by name: A [rank, in] and B [out, rank], gathered, in their dtype."""
    return {name: full_tensor(tensor) for name, tensor in model.named_parameters() if tensor.requires_grad}


def shard_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, of `parameter`'s full shape [...] and any dtype, sharded as `parameter` is; the dtype stays."""
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def is_moment(parameter: torch.Tensor, value: Any) -> bool:
    """Whether `value`, of an optimizer's state, is a tensor [...] of `parameter`'s shape, in any dtype."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested plain data with `change` applied to every leaf."""
    if isinstance(value, Mapping):
        return {key: map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_leaves(item, change) for item in value)
    return change(value)
