"""Attention over the rows of a batch.

Everything else in a decoder works token by token, so consecutive rows pass through it without padding. Attention alone
needs each row as a line of its own, all lines of one width, padded on the right. Causal attention never reads that
padding, and what is computed there is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainables.packed.batches import AttentionGrid, Batch

_NAME = "packed_rows"


class RowAttention:
    """The attention that the user chose, applied to the rows of `batch`."""

    def __init__(self, chosen: str) -> None:
        self.chosen = chosen
        """The attention of the user's choice, by transformers' name."""
        self._attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[chosen]
        self.batch: Batch | None = None
        """The batch that is passing through the base; None between two passes."""
        self.window: int | None = None
        """The smallest sliding window that a layer asked for, in tokens. It is not applied: a token attends to all
        earlier tokens of its row."""

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any,  # by this name, which some models give it
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """query, key, value: [1, heads, tokens, features], of any floating dtype; gives [1, tokens, heads, features] of
        the same dtype, and None for the attention weights. The mask is not used: rows are causal, and apart."""
        assert self.batch is not None
        if (window := more.get("sliding_window")) and (self.window is None or window < self.window):
            self.window = window
        grid, width, tokens = self.batch.grid, self.batch.width, query.shape[2]
        if grid is None:
            query, key, value = (_as_lines(part, width) for part in (query, key, value))
            found, _ = self._attend(module, query, key, value, None, **more)
            return found.reshape(1, tokens, *found.shape[2:]), None
        query, key, value = (_on_grid(part, grid) for part in (query, key, value))
        found, _ = self._attend(module, query, key, value, None, **more)
        return Gather.apply(found.reshape(grid.rows * width, -1), grid, tokens).view(1, tokens, *found.shape[2:]), None


def attach(model: Any) -> RowAttention | None:
    """Replaces the attention of the model's layers. None where the model does not let its attention be chosen."""
    chosen = model.config._attn_implementation
    if not getattr(model, "_supports_attention_backend", False) or chosen not in ALL_ATTENTION_FUNCTIONS:
        return None
    attention = RowAttention(chosen)
    name = f"{_NAME}_{id(attention)}"
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    model.config.get_text_config()._attn_implementation = name
    return attention


def _as_lines(part: torch.Tensor, width: int) -> torch.Tensor:
    """A view of `part` [1, heads, tokens, features] as [rows, heads, width, features]: rows are lines already."""
    _, heads, tokens, features = part.shape
    return part.view(heads, tokens // width, width, features).transpose(0, 1)


def _on_grid(part: torch.Tensor, grid: AttentionGrid) -> torch.Tensor:
    """`part` [1, heads, tokens, features] copied to [rows, heads, width, features], of the same dtype; zeros in cells
    without a token."""
    _, heads, tokens, features = part.shape
    flat = part.transpose(1, 2).reshape(tokens, heads * features)
    return Scatter.apply(flat, grid).view(grid.rows, grid.width, heads, features).transpose(1, 2)


class Scatter(torch.autograd.Function):
    """Copies tokens [tokens, features] into the cells of a grid [rows * width, features], zeros elsewhere.

    Its gradient is a gather.
    """

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, grid: AttentionGrid) -> torch.Tensor:
        """flat: [tokens, features]; gives [rows * width, features] of the same dtype."""
        ctx.grid, ctx.tokens = grid, flat.shape[0]
        return _scattered(flat, grid)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """grad: [rows * width, features]; gives [tokens, features] of the same dtype."""
        return _gathered(grad, ctx.grid, ctx.tokens), None


class Gather(torch.autograd.Function):
    """Copies the cells of a grid [rows * width, features] to tokens [tokens, features].

    Its gradient is a scatter without the additions of autograd's `index_select`: only padding tokens share a cell, and
    their gradients are zero.
    """

    @staticmethod
    def forward(ctx: Any, lines: torch.Tensor, grid: AttentionGrid, tokens: int) -> torch.Tensor:
        """lines: [rows * width, features]; gives [tokens, features] of the same dtype."""
        ctx.grid = grid
        return _gathered(lines, grid, tokens)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        """grad: [tokens, features]; gives [rows * width, features] of the same dtype."""
        return _scattered(grad, ctx.grid), None, None


def _scattered(flat: torch.Tensor, grid: AttentionGrid) -> torch.Tensor:
    """flat: [tokens, features]; gives [rows * width, features] of the same dtype, zeros in cells without a token."""
    own = flat if grid.tokens is None else flat.index_select(0, grid.tokens)
    return flat.new_zeros(grid.rows * grid.width, flat.shape[1]).index_copy_(0, grid.cells, own)


def _gathered(lines: torch.Tensor, grid: AttentionGrid, tokens: int) -> torch.Tensor:
    """lines: [rows * width, features]; gives [tokens, features] of the same dtype, zeros where a token has no cell."""
    own = lines.index_select(0, grid.cells)
    return own if grid.tokens is None else lines.new_zeros(tokens, lines.shape[1]).index_copy_(0, grid.tokens, own)
