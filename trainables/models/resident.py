"""Restores the base after every trial to what it was when it was loaded.

A trial changes it: TRL replaces the base's `forward` (each trial once more), PEFT its linear layers, transformers its
config and hooks. Undoing each by name would miss what their next versions change. So the attributes of all modules are
saved once, by reference, and put back.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any

import torch

_Attributes = dict[str, Any]


class Resident:
    """A base model that trials use one after another."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._modules = [(module, _copied(vars(module))) for module in model.modules()]
        self._configs = [(config, _configured(vars(config))) for config in _configs(model)]
        self._flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore(self) -> None:
        """Restores modules, `forward`, hooks, configs and `requires_grad`, and drops gradients.

        Weights that were changed in place stay changed.
        """
        for module, attributes in self._modules:
            vars(module).clear()
            vars(module).update(_copied(attributes))
        for config, attributes in self._configs:
            vars(config).clear()
            vars(config).update(_configured(attributes))
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
            parameter.grad = None

    def tree(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Name, type and attribute names of every module: equal before and after a trial."""
        return [
            (name, type(module).__qualname__, tuple(sorted(vars(module))))
            for name, module in self.model.named_modules()
        ]

    def checksum(self) -> str:
        """SHA-256 over all weights and buffers. Copies them to the host: for tests and debugging."""
        digest = hashlib.sha256()
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _copied(attributes: _Attributes) -> _Attributes:
    """The attributes of a module, containers (hooks, parameters, submodules) copied one level deep: changes inside them
    are undone too."""
    return {
        key: copy.copy(value) if isinstance(value, dict | list | set) else value for key, value in attributes.items()
    }


def _configured(attributes: _Attributes) -> _Attributes:
    """The attributes of a config, plain values copied; configs within it by reference, since modules hold them too."""
    return {
        key: value if hasattr(value, "to_dict") else copy.deepcopy(value) for key, value in attributes.items()
    }  # fmt: skip


def _configs(model: Any) -> Iterator[Any]:
    """Every config that a module holds, and those within it, once each."""
    seen: set[int] = set()
    waiting = [getattr(module, name, None) for module in model.modules() for name in ("config", "generation_config")]
    while waiting:
        config = waiting.pop()
        if config is None or not hasattr(config, "to_dict") or id(config) in seen:
            continue
        seen.add(id(config))
        waiting += [value for value in vars(config).values() if hasattr(value, "to_dict")]
        yield config
