"""The linear layers of the base that an adapter may sit on, and how a batch's slots find their part of the stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from trainables.models import targets
from trainables.packed.delta import Delta
from trainables.packed.rows import Segment
from trainables.packed.stack import Shape, Stack
from tuner.contract import Fault, Reason


@dataclass(frozen=True)
class Dropout:
    """A slot's dropout: its own stream of random numbers, so that a trial does not feel its neighbours."""

    share: float
    stream: torch.Generator


@dataclass
class Board:
    """What every site looks at during a forward pass; the engine sets it before."""

    segments: tuple[Segment, ...] = ()
    tokens: int = 0
    training: bool = False
    dropouts: dict[int, Dropout] = field(default_factory=dict)

    def masks(self, site: Site, like: torch.Tensor) -> list[torch.Tensor | None] | None:
        """Of every segment the factor of its inputs, None for 1; None where no segment has dropout.

        Drawn for adapted modules alone, as a solo run does, and at the segment's own length and not at the batch's,
        which the neighbours decide.
        """
        if not self.training or not self.dropouts:
            return None
        masks = [self._mask(segment, site.shape.inputs, like) if site.scales[segment.slot] else None
                 for segment in self.segments]  # fmt: skip
        return masks if any(mask is not None for mask in masks) else None

    def _mask(self, segment: Segment, features: int, like: torch.Tensor) -> torch.Tensor | None:
        dropout = self.dropouts.get(segment.slot)
        if dropout is None:
            return None
        keep = 1.0 - dropout.share
        drawn = torch.empty((segment.rows, segment.length, features), dtype=like.dtype, device=like.device)
        drawn = drawn.bernoulli_(keep, generator=dropout.stream).div_(keep)
        width = (segment.end - segment.begin) // segment.rows
        return torch.nn.functional.pad(drawn, (0, 0, 0, width - segment.length)).view(-1, features)


class Site:
    """One linear layer: the slots' A and B on it, and their scales; scale 0 where a trial leaves it out."""

    def __init__(self, name: str, shape: Shape, board: Board, slots: int) -> None:
        self.name, self.shape, self.board = name, shape, board
        self.scales = [0.0] * slots
        self.ranks = [0] * slots
        self.a = self.b = self.grad_a = self.grad_b = torch.empty(0)
        # Makes the output require a gradient where the input does not: in the first layer
        self.anchor = torch.zeros((), requires_grad=True)


def attach(model: Any, board: Board, slots: int) -> dict[str, Site]:
    """Puts a site on every linear layer but the output's, by replacing `forward`.

    The module tree stays as it is, so that PEFT finds the base it knows.
    """
    sites = {}
    for name in targets.linear_names(model):
        module = model.get_submodule(name)
        sites[name] = site = Site(name, _shape(module), board, slots)
        module.forward = partial(_forward, site, module.forward)
    return sites


def bind(sites: Mapping[str, Site], stack: Stack) -> None:
    """Gives every site its views of the stack's buffers."""
    weights, grads = stack.views(stack.cast), stack.views(stack.grads)
    for name, site in sites.items():
        site.a, site.b = weights[name]
        site.grad_a, site.grad_b = grads[name]
        site.ranks = stack.ranks


def _forward(site: Site, base: Callable[..., torch.Tensor], x: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
    result = base(x, *more, **named)
    board = site.board
    if not board.segments or not any(site.scales[segment.slot] for segment in board.segments):
        return result
    if x.numel() != board.tokens * site.shape.inputs:
        raise Fault(Reason.CONFIG, f"{site.name} sees {x.numel() // site.shape.inputs} of the batch's {board.tokens} "
                    "tokens: its trials cannot be told apart", "set scheduler.trials_per_gpu to 1")  # fmt: skip
    return Delta.apply(result, x, site.anchor, site)


def _shape(module: Any) -> Shape:
    if hasattr(module, "in_features"):
        return Shape(module.in_features, module.out_features)
    inputs, outputs = module.weight.shape  # transformers' Conv1D
    return Shape(inputs, outputs)
