"""Copies of slots to the host."""

from __future__ import annotations

import torch

from tests.trainables.packed.one_layer import stacked
from trainables.packed.copies import Copies


def test_a_copy_of_a_slot_is_not_trained_on() -> None:
    stack, _ = stacked(torch.float32, [4, 3])
    stack.first.copy_(3 * stack.weights)
    before = [part.clone() for part in stack.get(1, ["x"])["x"]]
    copy = Copies(torch.device("cpu")).of([stack.weights[1], stack.first[1]])
    stack.weights.add_(1.0)
    stack.first.zero_()
    copy.wait()
    for values, times in zip(copy.values, (1, 3), strict=True):
        parts = stack.parts(values, 1, ["x"])["x"]
        assert all((times * old).equal(new) for old, new in zip(before, parts, strict=True))
