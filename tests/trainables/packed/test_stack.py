"""The adapters of all slots in flat buffers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.packed.one_layer import stacked
from trainables.packed.stack import LinearShape, Stack


def test_a_higher_rank_moves_everything_over() -> None:
    stack, _ = stacked(torch.float32, [4, 3])
    before = {slot: [part.clone() for part in stack.get(slot, ["x"])["x"]] for slot in range(2)}
    stack.first.copy_(2 * stack.weights)
    assert not stack.grow(8)
    assert stack.grow(9) and stack.rank == 16
    for slot in range(2):
        for old, new in zip(before[slot], stack.get(slot, ["x"])["x"], strict=True):
            assert old.equal(new)
    torch.testing.assert_close(stack.first, 2 * stack.weights)


def test_a_higher_rank_that_has_no_room_leaves_everything_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, _ = stacked(torch.float32, [4, 3])
    before = {slot: [part.clone() for part in stack.get(slot, ["x"])["x"]] for slot in range(2)}
    zeros, made = torch.zeros, []

    def few(*args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(args)
        if len(made) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", few)
        with pytest.raises(torch.OutOfMemoryError):
            stack.grow(9)
    assert stack.rank == 8 and stack.grow(9) and stack.rank == 16
    for slot in range(2):
        for old, new in zip(before[slot], stack.get(slot, ["x"])["x"], strict=True):
            assert old.equal(new)


def test_what_is_looked_at_of_a_slot_is_the_beginning_of_each_tensor() -> None:
    shapes = {"x": LinearShape(5, 7), "y": LinearShape(2, 3), "z": LinearShape(4, 4)}
    stack = Stack(shapes, 2, torch.float32, torch.float32, torch.device("cpu"))
    stack.grow(9)
    for rank in (3, 16):
        names = ("x", "z")
        stack.put(1, {name: (torch.randn(rank, shapes[name].inputs), torch.randn(shapes[name].outputs, rank))
                      for name in names}, rank)  # fmt: skip
        for count in (1, 10, 1000):
            pairs = stack.get(1, names)
            expected = torch.cat([tensor.reshape(-1)[:count] for name in names for tensor in pairs[name]])
            assert stack.sample(1, names, count).equal(expected)
            if stack.grow(20):  # everything lies elsewhere now
                assert stack.sample(1, names, count).equal(expected)
