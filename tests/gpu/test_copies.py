"""Copies to pinned memory, which only a GPU needs. Run by hand: pytest -m gpu tests/gpu -s"""

from __future__ import annotations

import gc

import pytest
import torch

from trainables.packed.copies import Copies

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_a_copy_holds_what_was_there_when_it_was_asked_for() -> None:
    """While the GPU is busy, and although the rows are written to at once."""
    copies = Copies(torch.device("cuda"))
    rows = [torch.full((1 << 22,), float(value), device="cuda") for value in range(3)]
    busy = torch.randn(8192, 8192, device="cuda")
    for _ in range(20):
        busy = busy @ busy
    copy = copies.of(rows)
    for row in rows:
        row.fill_(-1.0)
    copy.wait()
    assert copy.values.is_pinned()
    assert all((line == value).all() for value, line in enumerate(copy.values))


def test_pinned_memory_has_a_bound_and_is_given_back() -> None:
    copies = Copies(torch.device("cuda"), most_pinned=1 << 20)
    row = torch.ones((1 << 17) - 5, device="cuda")  # half of it, as torch pins powers of two
    first, second, third = (copies.of([row]) for _ in range(3))
    assert [copy.values.is_pinned() for copy in (first, second, third)] == [True, True, False]
    assert (third.values == 1).all()
    first.wait()
    del first
    gc.collect()
    assert copies.of([row]).values.is_pinned()
