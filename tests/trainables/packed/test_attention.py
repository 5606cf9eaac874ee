"""Rows are copied to lines for attention, and back."""

from __future__ import annotations

import dataclasses

import numpy
import torch

from trainables.packed import attention
from trainables.packed.batches import collate
from trainables.packed.rows import FlatRows


def test_rows_in_a_line_are_laid_out_for_attention_and_back() -> None:
    """Rows of different lengths, with and without padding behind them; gradients go the same way back."""
    rows = FlatRows(numpy.arange(30), numpy.arange(30), numpy.array([0, 4, 5, 12, 20, 30]))
    batch = collate([(0, numpy.array([0, 2])), (3, numpy.array([1]))], rows, 99, torch.device("cpu"))
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, *range(5, 12), 4]]
    assert batch.position_ids.tolist() == [[*range(4), *range(7), 0]]
    assert [(s.slot, s.lengths, s.begin, s.end) for s in batch.segments] == [(0, (4, 7), 0, 11), (3, (1,), 11, 12)]
    assert batch.target_ids.tolist() == [1, 2, 3, *range(6, 12)] and batch.target_counts.tolist() == [9, 0]
    assert batch.grid is not None and (batch.grid.rows, batch.grid.width) == (3, 7)
    filled = dataclasses.replace(batch.grid, tokens=torch.arange(12) + (torch.arange(12) > 5))
    for grid, tokens in ((batch.grid, 12), (filled, 14)):
        flat = torch.randn(tokens, 2, requires_grad=True)
        lines = attention.Scatter.apply(flat, grid)
        back = attention.Gather.apply(lines * 3, grid, tokens)
        places = range(12) if grid.tokens is None else grid.tokens.tolist()
        assert all(back[i].equal(3 * flat[i]) for i in places) and back.count_nonzero() == 24
        back.sum().backward()
        assert flat.grad is not None and all((flat.grad[i] == 3).all() for i in places)
