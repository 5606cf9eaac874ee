"""What the processes of a group tell each other, and tensors that they share out. For one process alone: as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed.tensor import DTensor, distribute_tensor


def agreed(value: Any) -> Any:
    """What the first process has for `value`, everywhere."""
    return broadcast_object_list([value])[0]


def all_of(value: Any) -> list[Any]:
    """Every process's `value`, by rank."""
    return list(gather_object([value]))


def whole(value: Any) -> Any:
    """A tensor put together from what the processes hold of it; anything else as it is. All of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_adapter(model: Any) -> dict[str, torch.Tensor]:
    """What is trained of a model, by name, each tensor whole."""
    return {name: whole(tensor) for name, tensor in model.named_parameters() if tensor.requires_grad}


def like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A whole tensor, shared out as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def is_moment(parameter: torch.Tensor, value: Any) -> bool:
    """Whether an optimizer keeps `value` element by element of `parameter`, and not for all of it."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested plain data with `change` applied to what it is made of."""
    if isinstance(value, Mapping):
        return {key: each(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(each(item, change) for item in value)
    return change(value)
