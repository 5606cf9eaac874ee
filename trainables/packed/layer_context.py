"""What the adapted layers of the base look at during a pass: the batch's segments, each slot's adapter and dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trainables.packed.batches import Batch, Segment
from trainables.packed.frozen_linear import Frozen
from trainables.packed.stack import Shape


@dataclass(frozen=True)
class Dropout:
    """A slot's dropout: its own stream of random numbers, so that none of it is shared with its neighbours.

    Where steps are recorded, how many of them are drawn follows from the batch's shape, and so from the neighbours'
    rows: which masks a trial draws then depends on them, what they are drawn from does not.
    """

    share: float
    stream: torch.Generator

    def draw(self, mask: torch.Tensor) -> torch.Tensor:
        """Fills a mask with factors, and returns it."""
        keep = 1.0 - self.share
        return mask.bernoulli_(keep, generator=self.stream).div_(keep)


@dataclass
class Board:
    """What every site looks at during a forward pass and its backward; `show` sets it before."""

    segments: tuple[Segment, ...] = ()
    even: bool = False
    fixed: bool = False
    span: int = 0
    spots: torch.Tensor | None = None
    """As `Batch` has them."""
    tokens: int = 0
    training: bool = False
    slots: Any = None
    """The segments' slots: a slice where they are neighbours, which copies nothing, or else a tensor."""
    ends: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    dropouts: dict[int, Dropout] = field(default_factory=dict)
    _kept: dict[int, torch.Tensor] = field(default_factory=dict)

    def show(self, batch: Batch, *, training: bool) -> None:
        """The batch whose rows come through next."""
        self.segments, self.tokens, self.training = batch.segments, batch.input_ids.numel(), training
        self.even, self.fixed, self.span, self.spots = batch.even, batch.fixed, batch.span, batch.spots
        self.ends = batch.ends
        numbers = [segment.slot for segment in batch.segments]
        neighbours = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        self.slots = (
            slice(numbers[0], numbers[-1] + 1)
            if neighbours
            else torch.tensor(numbers).to(batch.input_ids.device, non_blocking=True)
        )
        self._kept.clear()

    def mask(self, site: Site, like: torch.Tensor) -> torch.Tensor | None:
        """The factors of a layer's inputs [tokens, features]; None where no segment has dropout there.

        Drawn for adapted modules alone, as a solo run does.
        """
        if not self.training or not self.dropouts:
            return None
        dropouts = {at: self.dropouts[segment.slot] for at, segment in enumerate(self.segments)
                    if segment.slot in self.dropouts and site.scales[segment.slot]}  # fmt: skip
        if not dropouts:
            return None
        if not like.is_cuda:
            return self._as_alone(dropouts, like)
        return self._by_spans(dropouts, like) if self.fixed else self._by_segments(dropouts, like)

    def _as_alone(self, dropouts: Mapping[int, Dropout], like: torch.Tensor) -> torch.Tensor:
        """What a solo run draws on a CPU: for rows padded to the longest of them; what pads them is left out."""
        mask = torch.ones_like(like)
        for at, dropout in dropouts.items():
            segment = self.segments[at]
            rows, width, tokens = len(segment.lengths), max(segment.lengths), sum(segment.lengths)
            drawn = dropout.draw(like.new_empty(rows * width, like.shape[1]))
            if tokens < len(drawn):
                if segment.slot not in self._kept:
                    lengths = torch.tensor(segment.lengths).unsqueeze(1)
                    self._kept[segment.slot] = (torch.arange(width) < lengths).reshape(-1).nonzero().squeeze(1)
                drawn = drawn.index_select(0, self._kept[segment.slot])
            mask[segment.begin : segment.begin + tokens] = drawn
        return mask

    def _by_segments(self, dropouts: Mapping[int, Dropout], like: torch.Tensor) -> torch.Tensor:
        """As many as there are tokens: a solo run's kernels on a GPU draw other numbers anyway."""
        mask = torch.ones_like(like)
        for at, dropout in dropouts.items():
            segment = self.segments[at]
            dropout.draw(mask[segment.begin : segment.begin + sum(segment.lengths)])
        return mask

    def _by_spans(self, dropouts: Mapping[int, Dropout], like: torch.Tensor) -> torch.Tensor:
        """As many for each segment, whatever it has: the number of draws and their places are those of the shape."""
        mask = like.new_ones(len(self.segments), self.span, like.shape[1])
        for at, dropout in dropouts.items():
            dropout.draw(mask[at])
        mask = mask.view(-1, like.shape[1])
        return mask if self.spots is None else mask.index_select(0, self.spots)


class Site:
    """One linear layer: the slots' A and B on it, and their scales; scale 0 where a trial leaves it out."""

    def __init__(self, name: str, frozen: Frozen, board: Board) -> None:
        self.name, self.frozen, self.board = name, frozen, board
        self.shape: Shape = frozen.shape
        self.base: Callable[..., torch.Tensor] = lambda x: x
        self.scales: list[float] = []
        self.ranks: list[int] = []
        self.scale = torch.empty(0)
        self.a = self.b = self.grad_a = self.grad_b = torch.empty(0)
        # Makes the output require a gradient where the input does not: in the first layer
        self.anchor = torch.zeros((), requires_grad=True)

    def make_room(self, slots: int) -> None:
        """So many slots, all of them empty."""
        self.scales, self.ranks = [0.0] * slots, [0] * slots
        self.scale = torch.zeros(slots, 1, 1)
        self.a = self.b = self.grad_a = self.grad_b = torch.empty(0)  # or the stack before would stay

    def rescale(self, slot: int, scale: float) -> None:
        """Sets the factor of a slot's adapter on this layer."""
        if self.scales[slot] != scale:
            self.scales[slot] = scale
            self.scale[slot] = scale
