"""The arithmetic beneath: what a slot's adapter adds, and how its step is taken."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers.pytorch_utils import Conv1D

from trainables.packed import attention, batches, multi_lora, optimizer
from trainables.packed.adapted_layers import bind
from trainables.packed.batches import Batch, Segment, Shapes, collate
from trainables.packed.copies import Copies
from trainables.packed.frozen_linear import freeze
from trainables.packed.layer_context import Board, Dropout, Site
from trainables.packed.optimizer import Update
from trainables.packed.rows import Rows
from trainables.packed.stack import Shape, Stack
from tuner.contract import Fault


def stacked(dtype: torch.dtype, ranks: list[int], seed: int = 0) -> tuple[Stack, Site]:
    """One layer of 6 to 5 features, with an adapter in each slot."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(6, 5, dtype=dtype).requires_grad_(False)
    site = Site("x", freeze("x", layer), Board())
    site.make_room(len(ranks))
    site.base = layer.forward
    stack = Stack({"x": site.shape}, len(ranks), dtype, dtype, "cpu")
    stack.fit(max(ranks))
    for slot, rank in enumerate(ranks):
        stack.put(slot, {"x": (torch.randn(rank, 6), torch.randn(5, rank))}, rank)
        site.scales[slot] = 0.5 + slot
    bind({"x": site}, stack)
    return stack, site


@pytest.mark.parametrize("slots", [(0, 1, 2, 3), (1, 3), (2,)], ids=str)
@pytest.mark.parametrize("form", ["each", "batched"])
def test_delta_is_the_sum_of_the_slots_own(slots: tuple[int, ...], form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and all three gradients, both forms, against autograd; slot 1 leaves this layer out."""
    monkeypatch.setattr(multi_lora, "form", lambda board, like: form)
    stack, site = stacked(torch.float64, [4, 3, 9, 1])
    stack.put(1, {}, 3)
    site.rescale(1, 0.0)
    segments = tuple(Segment(slot, (7,), 7 * at, 7 * at + 7) for at, slot in enumerate(slots))
    site.board.show(shown(segments), training=True)
    x, direction = (torch.randn(1, 7 * len(slots), n, dtype=torch.float64) for n in (6, 5))
    x.requires_grad_()
    (multi_lora.Delta.apply(x, site.anchor, site) * direction).sum().backward()

    weights = {slot: [part.clone().requires_grad_() for part in stack.get(slot, ["x"])["x"]] for slot in slots}
    plain = x.detach().clone().requires_grad_()
    parts = [site.base(plain[:, s.begin : s.end]) + site.scales[s.slot]
             * plain[:, s.begin : s.end] @ weights[s.slot][0].T @ weights[s.slot][1].T
             for s in segments]  # fmt: skip
    (torch.cat(parts, 1) * direction).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)
    for slot in range(4):
        found = stack.views(stack.grads)["x"]
        rank = stack.ranks[slot]
        a, b = found[0][slot], found[1][slot]
        if slot in slots and slot != 1:
            torch.testing.assert_close((a[:rank], b[:, :rank]), tuple(part.grad for part in weights[slot]))
        else:
            assert not a.any() and not b.any()
        assert not a[rank:].any() and not b[:, rank:].any()


def shown(segments: tuple[Segment, ...], **more: Any) -> Batch:
    """A batch of these segments, of one length if nothing else is said."""
    nothing = torch.empty(0)
    given: dict[str, Any] = {"even": True, "fixed": False, "span": 0, "spots": None, "grid": None, "width": 1} | more
    return Batch(
        input_ids=torch.zeros(1, segments[-1].end), position_ids=nothing, segments=segments, positions=nothing,
        targets=nothing, counts=nothing, ends=nothing, **given,
    )  # fmt: skip


def masked(segments: tuple[Segment, ...], way: str, **more: Any) -> torch.Tensor:
    """The masks that a GPU gets: slot 1 with dropout 0.25, slots 0 and 2 without."""
    board = Board()
    board.dropouts[1] = Dropout(0.25, torch.Generator().manual_seed(3))
    board.show(shown(segments, even=False, **more), training=True)
    at = {at: board.dropouts[1] for at, segment in enumerate(segments) if segment.slot == 1}
    return getattr(board, way)(at, torch.zeros(segments[-1].end, 6))


def test_dropout_on_a_gpu_does_not_feel_neighbours() -> None:
    """Whoever is beside it, and however much filler; without dropout, and for filler, the factor is 1."""
    few = (Segment(0, (3,), 0, 8), Segment(1, (4, 5), 8, 24), Segment(2, (2,), 24, 32))
    many = (Segment(0, (30,), 0, 32), Segment(1, (4, 5), 32, 48))
    first, second = masked(few, "_by_segments"), masked(many, "_by_segments")
    own = first[8:17]
    assert own.equal(second[32:41]) and own.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert (first[:8] == 1).all() and (first[17:] == 1).all() and (second[:32] == 1).all()


def test_dropout_of_a_fixed_shape_is_drawn_for_its_span() -> None:
    """So that whatever rows come draw alike: a segment's tokens have the first of what is drawn for it."""
    few = (Segment(0, (3,), 0, 8), Segment(1, (4, 5), 8, 24))
    spots = torch.tensor([*range(8), *range(16, 32)])
    mask = masked(few, "_by_spans", fixed=True, span=16, spots=spots)
    drawn = torch.empty(16, 6).bernoulli_(0.75, generator=torch.Generator().manual_seed(3)).div_(0.75)
    assert (mask[:8] == 1).all() and mask[8:].equal(drawn)


@pytest.mark.parametrize("kind", ["Linear", "Linear4bit", "Conv1D"])
def test_the_gradient_of_a_frozen_layer_is_autograds(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "Linear":
        layer: Any = torch.nn.Linear(64, 32)
    elif kind == "Conv1D":
        layer = Conv1D(32, 64)
    else:
        layer = Linear4bit(64, 32, compute_dtype=torch.bfloat16, quant_type="nf4").to("cpu")
        layer.support_avx512bf16_for_cpu = False
    x = torch.randn(5, 64, requires_grad=True)
    direction = torch.randn(5, 32)
    (layer(x) * direction).sum().backward()
    frozen = freeze("x", layer)
    assert (frozen.shape.inputs, frozen.shape.outputs) == (64, 32)
    torch.testing.assert_close(frozen.backward(direction).to(x.dtype), x.grad)


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(Fault, match="Bilinear"):
        freeze("x", torch.nn.Bilinear(2, 2, 2))


def test_rows_in_a_line_are_laid_out_for_attention_and_back() -> None:
    """Rows of different lengths, with and without filler behind them; gradients go the same way back."""
    rows = Rows(numpy.arange(30), numpy.arange(30), numpy.array([0, 4, 5, 12, 20, 30]))
    batch = collate([(0, numpy.array([0, 2])), (3, numpy.array([1]))], rows, 99, torch.device("cpu"))
    assert batch.input_ids.tolist() == [[0, 1, 2, 3, *range(5, 12), 4]]
    assert batch.position_ids.tolist() == [[*range(4), *range(7), 0]]
    assert [(s.slot, s.lengths, s.begin, s.end) for s in batch.segments] == [(0, (4, 7), 0, 11), (3, (1,), 11, 12)]
    assert batch.targets.tolist() == [1, 2, 3, *range(6, 12)] and batch.counts.tolist() == [9, 0]
    assert batch.grid is not None and (batch.grid.rows, batch.grid.width) == (3, 7)
    filled = dataclasses.replace(batch.grid, tokens=torch.arange(12) + (torch.arange(12) > 5))
    for grid, tokens in ((batch.grid, 12), (filled, 14)):
        flat = torch.randn(tokens, 2, requires_grad=True)
        lines = attention._Scatter.apply(flat, grid)
        back = attention._Gather.apply(lines * 3, grid, tokens)
        places = range(12) if grid.tokens is None else grid.tokens.tolist()
        assert all(back[i].equal(3 * flat[i]) for i in places) and back.count_nonzero() == 24
        back.sum().backward()
        assert flat.grad is not None and all((flat.grad[i] == 3).all() for i in places)


def test_filler_is_not_taken_for_rows() -> None:
    """As many tokens as lines of the longest row have, and rows that are shorter: so it is with truncated ones."""
    lengths = [numpy.array([256, 256]), numpy.array([215, 256])]
    tokens = numpy.concatenate([numpy.arange(512), numpy.arange(512, 983)])
    places, real, width = batches._line_places(lengths, tokens, 1024)
    assert width == 256 and real is tokens
    assert places.tolist() == [*range(512), *range(512, 727), *range(768, 1024)]
    fixed, width = batches._fixed_places(lengths, [0, 512, 1024], Shapes())
    assert width == 384 and fixed[512:727].tolist() == list(range(768, 983)) and set(fixed[983:]) == {3 * 384 - 1}


@pytest.mark.parametrize("seed", range(20))
def test_fixed_shapes_hold_the_same_rows(seed: int) -> None:
    """Every row where it was, filler where no row sees it, and no more than a few shapes for batches of one kind."""
    draw = numpy.random.default_rng(seed)
    sizes = draw.integers(100, 200, 60) if seed else numpy.full(60, 24)
    ends = numpy.cumsum(sizes)
    rows = Rows(numpy.arange(ends[-1]), numpy.arange(ends[-1]), numpy.concatenate([[0], ends]))
    shapes, seen = Shapes(), set()
    for _ in range(40):
        parts = [(slot, draw.choice(60, 2 + slot % 2)) for slot in (0, 2, 3)]
        plain = collate(parts, rows, -1, torch.device("cpu"))
        fixed = collate(parts, rows, -1, torch.device("cpu"), shapes)
        seen.add((fixed.input_ids.shape[1], fixed.width))
        assert fixed.targets.equal(plain.targets) and fixed.counts.equal(plain.counts)
        assert fixed.input_ids[0, fixed.positions].equal(plain.input_ids[0, plain.positions])
        filler = fixed.input_ids[0] == -1
        assert fixed.input_ids[0, ~filler].equal(plain.input_ids[0])
        assert fixed.position_ids[0, ~filler].equal(plain.position_ids[0])
        if fixed.grid is not None:
            assert fixed.grid.tokens is None
            taken, left = fixed.grid.places[~filler].tolist(), fixed.grid.places[filler].tolist()
            assert len(set(taken)) == len(taken) and not set(taken) & set(left)
            assert {place % fixed.width for place in left} <= {fixed.width - 1}
        for at, segment in enumerate(fixed.segments):
            own = slice(segment.begin, segment.begin + sum(segment.lengths))
            if fixed.spots is not None:
                assert fixed.spots[own].tolist() == list(range(at * fixed.span, at * fixed.span + own.stop - own.start))
    assert len(seen) <= 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adamw_is_torchs(dtype: torch.dtype) -> None:
    """Slots that step at different times, each with its own settings; padding stays zero."""
    ranks = [4, 8, 2]
    stack, _ = stacked(dtype, ranks)
    rates, decays, norms = (1e-2, 3e-4, 1.0), (0.0, 0.1, 2.0), (1.0, 0.0, 0.05)
    own = [[part.clone().contiguous().requires_grad_() for part in stack.get(slot, ["x"])["x"]] for slot in range(3)]
    solo = [torch.optim.AdamW(own[slot], lr=rates[slot], weight_decay=decays[slot], fused=True) for slot in range(3)]
    for step in range(20):
        slots = [slot for slot in range(3) if step % (slot + 1) == 0]
        for slot in range(3):  # a slot whose window is not full accumulates
            views = stack.views(stack.grads)["x"]
            for part, total in zip(own[slot], (views[0][slot, : ranks[slot]], views[1][slot, :, : ranks[slot]]),
                                   strict=True):  # fmt: skip
                grad = torch.randn(part.shape).to(dtype)
                total.add_(grad)
                part.grad = grad.clone() if part.grad is None else part.grad + grad
        updates = []
        for slot in slots:
            updates.append(Update(slot, rates[slot], decays[slot], norms[slot]))
            if norms[slot]:
                torch.nn.utils.clip_grad_norm_(own[slot], norms[slot])
            solo[slot].step()
            solo[slot].zero_grad()
        optimizer.apply(stack, updates)
    exact = dtype == torch.float32
    for slot in range(3):
        for mine, theirs in zip(stack.get(slot, ["x"])["x"], own[slot], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6 if exact else 2e-2, atol=1e-6 if exact else 2e-2)
        a, b = (part[slot] for part in stack.views(stack.weights)["x"])
        assert not a[ranks[slot] :].any() and not b[:, ranks[slot] :].any()


def test_a_higher_rank_moves_everything_over() -> None:
    stack, _ = stacked(torch.float32, [4, 3])
    before = {slot: [part.clone() for part in stack.get(slot, ["x"])["x"]] for slot in range(2)}
    stack.first.copy_(2 * stack.weights)
    assert not stack.fit(8)
    assert stack.fit(9) and stack.rank == 16
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
            stack.fit(9)
    assert stack.rank == 8 and stack.fit(9) and stack.rank == 16
    for slot in range(2):
        for old, new in zip(before[slot], stack.get(slot, ["x"])["x"], strict=True):
            assert old.equal(new)


def test_what_is_looked_at_of_a_slot_is_the_beginning_of_each_tensor() -> None:
    shapes = {"x": Shape(5, 7), "y": Shape(2, 3), "z": Shape(4, 4)}
    stack = Stack(shapes, 2, torch.float32, torch.float32, torch.device("cpu"))
    stack.fit(9)
    for rank in (3, 16):
        names = ("x", "z")
        stack.put(1, {name: (torch.randn(rank, shapes[name].inputs), torch.randn(shapes[name].outputs, rank))
                      for name in names}, rank)  # fmt: skip
        for count in (1, 10, 1000):
            pairs = stack.get(1, names)
            expected = torch.cat([tensor.reshape(-1)[:count] for name in names for tensor in pairs[name]])
            assert stack.sampled(1, names, count).equal(expected)
            if stack.fit(20):  # everything lies elsewhere now
                assert stack.sampled(1, names, count).equal(expected)


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
