"""The linear layers of the base that an adapter may sit on: their `forward` replaced by one that adds every slot's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from trainables.models import targets
from trainables.packed.frozen_linear import freeze
from trainables.packed.layer_context import Board, Site
from trainables.packed.multi_lora import Delta
from trainables.packed.stack import Stack
from tuner.contract import Fault, Reason


def attach(model: Any, board: Board) -> dict[str, Site]:
    """Puts a site on every linear layer but the output's, by replacing `forward`.

    The module tree stays as it is, so that PEFT finds the base it knows.
    """
    sites = {}
    for name in targets.linear_names(model):
        module = model.get_submodule(name)
        sites[name] = site = Site(name, freeze(name, module), board)
        site.base = module.forward
        module.forward = partial(_forward, site)
    return sites


def bind(sites: Mapping[str, Site], stack: Stack) -> None:
    """Gives every site its views of the stack's buffers."""
    weights, grads = stack.views(stack.cast), stack.views(stack.grads)
    for name, site in sites.items():
        site.a, site.b = weights[name]
        site.grad_a, site.grad_b = grads[name]
        site.ranks = stack.ranks
        site.scale = torch.tensor(site.scales, dtype=stack.compute).view(-1, 1, 1).to(stack.device)


def _forward(site: Site, x: torch.Tensor) -> torch.Tensor:
    board = site.board
    if not board.segments or not any(site.scales[segment.slot] for segment in board.segments):
        return site.base(x)
    if x.numel() != board.tokens * site.shape.inputs:
        raise Fault(Reason.CONFIG, f"{site.name} sees {x.numel() // site.shape.inputs} of the batch's {board.tokens} "
                    "tokens: its trials cannot be told apart", "set resources.trials_per_gpu to 1")  # fmt: skip
    return Delta.apply(x, site.anchor, site)
