"""Attention over rows that lie one behind the other.

Everything else in a decoder works token by token, so a batch goes through it without padding. Here alone the rows are
laid side by side, padded on the right; causal attention never looks there, and what it computes there is left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainables.packed.batches import Batch, Grid

_NAME = "rows_in_a_line"


class RowAttention:
    """The attention that the user chose, on the rows of the batch that is shown to it."""

    def __init__(self, chosen: str) -> None:
        self._attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[chosen]
        self.batch: Batch | None = None
        self.window: int | None = None
        """The fewest tokens that a layer wanted to see; here every layer sees its whole row."""

    def __call__(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **more: Any
    ) -> tuple[torch.Tensor, None]:
        """query, key, value: [1, heads, tokens, features]; answers [1, tokens, heads, features]."""
        assert self.batch is not None
        if (window := more.get("sliding_window")) and (self.window is None or window < self.window):
            self.window = window
        grid, width, tokens = self.batch.grid, self.batch.width, query.shape[2]
        if grid is None:
            query, key, value = (_apart(part, width) for part in (query, key, value))
            found, _ = self._attend(module, query, key, value, None, **more)
            return found.reshape(1, tokens, *found.shape[2:]), None
        query, key, value = (_laid_out(part, grid) for part in (query, key, value))
        found, _ = self._attend(module, query, key, value, None, **more)
        return _Gather.apply(found.reshape(grid.rows * width, -1), grid, tokens).view(1, tokens, *found.shape[2:]), None


def attach(model: Any) -> RowAttention | None:
    """Gives the model's layers an attention over rows in a line. None where the model lets nobody choose."""
    chosen = model.config._attn_implementation
    if not getattr(model, "_supports_attention_backend", False) or chosen not in ALL_ATTENTION_FUNCTIONS:
        return None
    attention = RowAttention(chosen)
    name = f"{_NAME}_{id(attention)}"
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    model.config.get_text_config()._attn_implementation = name
    return attention


def _apart(part: torch.Tensor, width: int) -> torch.Tensor:
    """[1, heads, tokens, features] as [rows, heads, width, features]."""
    _, heads, tokens, features = part.shape
    return part.view(heads, tokens // width, width, features).transpose(0, 1)


def _laid_out(part: torch.Tensor, grid: Grid) -> torch.Tensor:
    _, heads, tokens, features = part.shape
    flat = part.transpose(1, 2).reshape(tokens, heads * features)
    return _Scatter.apply(flat, grid).view(grid.rows, grid.width, heads, features).transpose(1, 2)


class _Scatter(torch.autograd.Function):
    """Tokens [tokens, features] to the grid [rows * width, features], zeros elsewhere. Its gradient is a gather."""

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, grid: Grid) -> torch.Tensor:
        ctx.grid, ctx.tokens = grid, flat.shape[0]
        return _scattered(flat, grid)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return _gathered(grad, ctx.grid, ctx.tokens), None


class _Gather(torch.autograd.Function):
    """The way back. Autograd's own gradient of an index_select adds where here nothing overlaps but filler, whose
    gradients are zeros."""

    @staticmethod
    def forward(ctx: Any, lines: torch.Tensor, grid: Grid, tokens: int) -> torch.Tensor:
        ctx.grid = grid
        return _gathered(lines, grid, tokens)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        return _scattered(grad, ctx.grid), None, None


def _scattered(flat: torch.Tensor, grid: Grid) -> torch.Tensor:
    own = flat if grid.tokens is None else flat.index_select(0, grid.tokens)
    return flat.new_zeros(grid.rows * grid.width, flat.shape[1]).index_copy_(0, grid.places, own)


def _gathered(lines: torch.Tensor, grid: Grid, tokens: int) -> torch.Tensor:
    own = lines.index_select(0, grid.places)
    return own if grid.tokens is None else lines.new_zeros(tokens, lines.shape[1]).index_copy_(0, grid.tokens, own)
