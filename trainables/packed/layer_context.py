"""What an adapted layer of the base reads during a pass: the batch's segments, the slots' adapters, dropout masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from trainables.packed.batches import Batch, Segment
from trainables.packed.frozen_linear import FrozenLinear
from trainables.packed.stack import LinearShape


@dataclass(frozen=True)
class Dropout:
    """A slot's dropout, with a random generator of its own, so that neighbours do not draw from it.

    Where steps are captured, the number of draws follows from the batch's shape, which the neighbours' rows change:
    they then change which masks a trial draws, but not the distribution of its masks.
    """

    share: float
    """Probability that an input is dropped."""
    stream: torch.Generator
    """The slot's generator, on the device of the masks."""

    def draw(self, mask: torch.Tensor) -> torch.Tensor:
        """Fills `mask` [...], of any floating dtype, in place with 0 and 1 / (1 - share), and gives it back."""
        keep = 1.0 - self.share
        return mask.bernoulli_(keep, generator=self.stream).div_(keep)


@dataclass
class BatchContext:
    """The batch that is passing through the base, for every adapted layer's forward and backward.

    `show` sets it before the pass. While `segments` is empty, layers compute what the base alone computes.
    """

    segments: tuple[Segment, ...] = ()
    """As in `Batch`, and so the next five."""
    uniform: bool = False
    """Whether all segments have one length."""
    bucketed: bool = False
    """Whether the batch is padded to a shape of `ShapeBuckets`."""
    padded_len: int = 0
    """Tokens of a segment in dropout masks."""
    scatter_index: torch.Tensor | None = None
    """[tokens] int64, or None."""
    segment_ends: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """[segments] int32."""
    tokens: int = 0
    """Tokens of the batch, padding included."""
    training: bool = False
    """Whether dropout is applied."""
    slots: Any = None
    """The segments' slots: a slice where they are consecutive, which copies nothing, or else [segments] int64."""
    dropouts: dict[int, Dropout] = field(default_factory=dict)
    """By slot; slots without dropout are not in it."""
    _kept: dict[int, torch.Tensor] = field(default_factory=dict)
    """By slot, [tokens] int64: the tokens' indices among the rows padded to the longest; see `mask_of_solo_runs`."""

    def show(self, batch: Batch, *, training: bool) -> None:
        """Sets the batch of the next pass."""
        self.segments, self.tokens, self.training = batch.segments, batch.input_ids.numel(), training
        self.uniform, self.bucketed = batch.uniform, batch.bucketed
        self.padded_len, self.scatter_index = batch.padded_len, batch.scatter_index
        self.segment_ends = batch.segment_ends
        slots = [segment.slot for segment in batch.segments]
        consecutive = slots == list(range(slots[0], slots[0] + len(slots)))
        self.slots = (
            slice(slots[0], slots[-1] + 1)
            if consecutive
            else torch.tensor(slots).to(batch.input_ids.device, non_blocking=True)
        )
        self._kept.clear()

    def show_lines(self, groups: Sequence[tuple[int, int]], width: int, device: torch.device) -> None:
        """Sets a batch of lines of `width` tokens for the next pass, without dropout. groups: slots, ascending, each
        with the number of its lines, which are next to each other."""
        ends = list(accumulate(lines * width for _, lines in groups))
        begins = [0, *ends]
        self.segments = tuple(
            Segment(slot, (width,) * lines, begin, end)
            for (slot, lines), begin, end in zip(groups, begins, ends, strict=False)
        )
        self.tokens, self.training, self.bucketed = ends[-1], False, False
        self.uniform = len({lines for _, lines in groups}) == 1
        self.padded_len, self.scatter_index = 0, None
        self.segment_ends = torch.tensor(ends, dtype=torch.int32, device=device)
        self.slots = torch.tensor([slot for slot, _ in groups], device=device)
        self._kept.clear()

    def mask(self, layer: AdaptedLinear, inputs: torch.Tensor) -> torch.Tensor | None:
        """The dropout mask of a layer's `inputs` [tokens, in], of the same shape and dtype; None where nothing is
        dropped.

        It is drawn only for slots with an adapter on this layer, as a solo run does.
        """
        if not self.training or not self.dropouts:
            return None
        dropouts = {at: self.dropouts[segment.slot] for at, segment in enumerate(self.segments)
                    if segment.slot in self.dropouts and layer.scales[segment.slot]}  # fmt: skip
        if not dropouts:
            return None
        if not inputs.is_cuda:
            return self.mask_of_solo_runs(dropouts, inputs)
        return self.mask_of_bucket(dropouts, inputs) if self.bucketed else self.mask_of_segments(dropouts, inputs)

    def mask_of_solo_runs(self, dropouts: Mapping[int, Dropout], inputs: torch.Tensor) -> torch.Tensor:
        """The mask that solo runs draw on a CPU: for rows padded to the longest of them, the padding then left out.

        dropouts: by index of the segment. inputs: [tokens, in]; the mask has its shape and dtype.
        """
        mask = torch.ones_like(inputs)
        for at, dropout in dropouts.items():
            segment = self.segments[at]
            rows, width, tokens = len(segment.lengths), max(segment.lengths), sum(segment.lengths)
            drawn = dropout.draw(inputs.new_empty(rows * width, inputs.shape[1]))
            if tokens < len(drawn):
                if segment.slot not in self._kept:
                    lengths = torch.tensor(segment.lengths).unsqueeze(1)
                    self._kept[segment.slot] = (torch.arange(width) < lengths).reshape(-1).nonzero().squeeze(1)
                drawn = drawn.index_select(0, self._kept[segment.slot])
            mask[segment.begin : segment.begin + tokens] = drawn
        return mask

    def mask_of_segments(self, dropouts: Mapping[int, Dropout], inputs: torch.Tensor) -> torch.Tensor:
        """A mask with one draw for each token and input: a solo run's kernels on a GPU draw other values anyway.

        dropouts: by index of the segment. inputs: [tokens, in]; the mask has its shape and dtype.
        """
        mask = torch.ones_like(inputs)
        for at, dropout in dropouts.items():
            segment = self.segments[at]
            dropout.draw(mask[segment.begin : segment.begin + sum(segment.lengths)])
        return mask

    def mask_of_bucket(self, dropouts: Mapping[int, Dropout], inputs: torch.Tensor) -> torch.Tensor:
        """A mask drawn for `padded_len` tokens of each segment: the number of draws depends on the batch's shape alone.

        dropouts: by index of the segment. inputs: [tokens, in]; the mask has its shape and dtype.
        """
        mask = inputs.new_ones(len(self.segments), self.padded_len, inputs.shape[1])
        for at, dropout in dropouts.items():
            dropout.draw(mask[at])
        mask = mask.view(-1, inputs.shape[1])
        return mask if self.scatter_index is None else mask.index_select(0, self.scatter_index)


class AdaptedLinear:
    """One linear layer of the base, with its views of the stack: A, B and a scale for each slot."""

    def __init__(self, name: str, frozen: FrozenLinear, context: BatchContext) -> None:
        self.name, self.frozen, self.context = name, frozen, context
        self.shape: LinearShape = frozen.shape
        self.base: Callable[..., torch.Tensor] = lambda x: x
        """The base's own forward: [1, tokens, in] of any floating dtype to [1, tokens, out]."""
        self.scales: list[float] = []
        """By slot: the factor of B A; 0 where its trial has no adapter on this layer."""
        self.ranks: list[int] = []
        """By slot: the rank of its adapter, padding excluded."""
        self.scale = torch.empty(0)
        """[slots, 1, 1] in the compute dtype: `scales` on the device."""
        self.a = self.b = self.grad_a = self.grad_b = torch.empty(0)
        """a: [slots, rank, in] and b: [slots, out, rank], in the compute dtype; grad_a and grad_b: the same shapes in
        the adapters' dtype. Views of the stack, ranks padded."""
        self.anchor = torch.zeros((), requires_grad=True)
        """[] float32. Makes the output require a gradient where the input does not: in the first layer."""

    def allocate(self, slots: int) -> None:
        """Makes `slots` slots, all of them empty."""
        self.scales, self.ranks = [0.0] * slots, [0] * slots
        self.scale = torch.zeros(slots, 1, 1)
        self.a = self.b = self.grad_a = self.grad_b = torch.empty(0)  # else they would keep the old stack alive

    def rescale(self, slot: int, scale: float) -> None:
        """Sets the factor of a slot's adapter on this layer."""
        if self.scales[slot] != scale:
            self.scales[slot] = scale
            self.scale[slot] = scale
