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


def test_a_model_may_give_the_mask_by_its_name() -> None:
    """As AFMoE does. Every row attends to itself alone, with a mask of any kind."""
    rows = FlatRows(numpy.arange(12), numpy.arange(12), numpy.array([0, 4, 5, 12]))
    attend, module = attention.RowAttention("sdpa"), torch.nn.Module()
    attend.batch = collate([(0, numpy.array([0, 2])), (1, numpy.array([1]))], rows, 99, torch.device("cpu"))
    query, key, value = (torch.randn(1, 2, 12, 4) for _ in range(3))
    by_place, _ = attend(module, query, key, value, None, scaling=0.5)
    by_name, _ = attend(module, query, key, value, attention_mask=torch.ones(12, 12), scaling=0.5)
    alone = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, :4], key[:, :, :4], value[:, :, :4], is_causal=True, scale=0.5
    )
    assert by_name.equal(by_place)
    torch.testing.assert_close(by_name[:, :4], alone.transpose(1, 2))
