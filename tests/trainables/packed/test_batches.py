"""Rows of several slots make one batch, in few shapes."""

from __future__ import annotations

import numpy
import pytest
import torch

from trainables.packed import batches
from trainables.packed.batches import ShapeBuckets, collate
from trainables.packed.rows import FlatRows


def test_padding_is_not_taken_for_rows() -> None:
    """As many tokens as lines of the longest row have, and rows that are shorter: so it is with truncated ones."""
    lengths = [numpy.array([256, 256]), numpy.array([215, 256])]
    tokens = numpy.concatenate([numpy.arange(512), numpy.arange(512, 983)])
    places, real, width = batches._line_cells(lengths, tokens, 1024)
    assert width == 256 and real is tokens
    assert places.tolist() == [*range(512), *range(512, 727), *range(768, 1024)]
    bucketed, width = batches._bucketed_cells(lengths, [0, 512, 1024], ShapeBuckets())
    assert width == 384 and bucketed[512:727].tolist() == list(range(768, 983)) and set(bucketed[983:]) == {3 * 384 - 1}


@pytest.mark.parametrize("seed", range(20))
def test_buckets_hold_the_same_rows(seed: int) -> None:
    """Every row where it was, padding where no row sees it, and no more than a few shapes for batches of one kind."""
    draw = numpy.random.default_rng(seed)
    sizes = draw.integers(100, 200, 60) if seed else numpy.full(60, 24)
    ends = numpy.cumsum(sizes)
    rows = FlatRows(numpy.arange(ends[-1]), numpy.arange(ends[-1]), numpy.concatenate([[0], ends]))
    shapes, seen = ShapeBuckets(), set()
    for _ in range(40):
        parts = [(slot, draw.choice(60, 2 + slot % 2)) for slot in (0, 2, 3)]
        plain = collate(parts, rows, -1, torch.device("cpu"))
        bucketed = collate(parts, rows, -1, torch.device("cpu"), shapes)
        seen.add((bucketed.input_ids.shape[1], bucketed.width))
        assert bucketed.target_ids.equal(plain.target_ids) and bucketed.target_counts.equal(plain.target_counts)
        assert bucketed.input_ids[0, bucketed.target_positions].equal(plain.input_ids[0, plain.target_positions])
        padding = bucketed.input_ids[0] == -1
        assert bucketed.input_ids[0, ~padding].equal(plain.input_ids[0])
        assert bucketed.position_ids[0, ~padding].equal(plain.position_ids[0])
        if bucketed.grid is not None:
            assert bucketed.grid.tokens is None
            taken, left = bucketed.grid.cells[~padding].tolist(), bucketed.grid.cells[padding].tolist()
            assert len(set(taken)) == len(taken) and not set(taken) & set(left)
            assert {place % bucketed.width for place in left} <= {bucketed.width - 1}
        for at, segment in enumerate(bucketed.segments):
            own = slice(segment.begin, segment.begin + sum(segment.lengths))
            if bucketed.scatter_index is not None:
                assert bucketed.scatter_index[own].tolist() == list(
                    range(at * bucketed.padded_len, at * bucketed.padded_len + own.stop - own.start)
                )
    assert len(seen) <= 8
