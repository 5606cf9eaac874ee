"""Dropout masks of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.packed.one_layer import segments_batch
from trainables.packed.batches import Segment
from trainables.packed.layer_context import BatchContext, Dropout


def masked(segments: tuple[Segment, ...], packed: str, **more: Any) -> torch.Tensor:
    """The mask that a GPU gets: slot 1 has dropout 0.25, slots 0 and 2 have none."""
    context = BatchContext()
    context.dropouts[1] = Dropout(0.25, torch.Generator().manual_seed(3))
    context.show(segments_batch(segments, uniform=False, **more), training=True)
    at = {at: context.dropouts[1] for at, segment in enumerate(segments) if segment.slot == 1}
    return getattr(context, packed)(at, torch.zeros(segments[-1].end, 6))


def test_dropout_on_a_gpu_does_not_feel_neighbours() -> None:
    """Whoever is beside it, and however much padding; without dropout, and for padding, the factor is 1."""
    few = (Segment(0, (3,), 0, 8), Segment(1, (4, 5), 8, 24), Segment(2, (2,), 24, 32))
    many = (Segment(0, (30,), 0, 32), Segment(1, (4, 5), 32, 48))
    first, second = masked(few, "mask_of_segments"), masked(many, "mask_of_segments")
    own = first[8:17]
    assert own.equal(second[32:41]) and own.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (first[:8] == 1).all() and (first[17:] == 1).all() and (second[:32] == 1).all()


def test_dropout_of_a_bucket_is_drawn_for_its_padded_length() -> None:
    """So that whatever rows come draw alike: a segment's tokens have the first of what is drawn for it."""
    few = (Segment(0, (3,), 0, 8), Segment(1, (4, 5), 8, 24))
    scatter_index = torch.tensor([*range(8), *range(16, 32)])
    mask = masked(few, "mask_of_bucket", bucketed=True, padded_len=16, scatter_index=scatter_index)
    drawn = torch.empty(16, 6).bernoulli_(0.75, generator=torch.Generator().manual_seed(3)).div_(0.75)
    assert (mask[:8] == 1).all() and mask[8:].equal(drawn)
