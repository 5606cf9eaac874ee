"""The arithmetic beneath: what a slot's adapter adds, and how its step is taken."""

from __future__ import annotations

import pytest
import torch

from trainables.packed import delta, optimizer
from trainables.packed.optimizer import Update
from trainables.packed.rows import Segment
from trainables.packed.sites import Board, Site, bind
from trainables.packed.stack import Shape, Stack


def stacked(dtype: torch.dtype, ranks: list[int], seed: int = 0) -> tuple[Stack, Site]:
    """One layer of 6 to 5 features, with an adapter in each slot."""
    torch.manual_seed(seed)
    shape = Shape(6, 5)
    stack, site = Stack({"x": shape}, len(ranks), dtype, dtype, "cpu"), Site("x", shape, Board(), len(ranks))
    stack.fit(max(ranks))
    for slot, rank in enumerate(ranks):
        stack.put(slot, {"x": (torch.randn(rank, 6), torch.randn(5, rank))}, rank)
        site.scales[slot] = 0.5 + slot
    bind({"x": site}, stack)
    return stack, site


@pytest.mark.parametrize("slots", [(0, 1, 2, 3), (1, 3), (2,)], ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_delta_is_the_sum_of_the_slots_own(
    slots: tuple[int, ...], batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and all three gradients, both forms, against autograd; slot 1 leaves this layer out."""
    monkeypatch.setattr(delta, "_batched", lambda segments: batched)
    stack, site = stacked(torch.float64, [4, 3, 9, 1])
    stack.put(1, {}, 3)
    site.scales[1] = 0.0
    site.board.segments = tuple(Segment(slot, 1, 7, 7 * at, 7 * at + 7) for at, slot in enumerate(slots))
    x, result, direction = (torch.randn(1, 7 * len(slots), n, dtype=torch.float64) for n in (6, 5, 5))
    x.requires_grad_()
    result.requires_grad_()
    (delta.Delta.apply(result, x, site.anchor, site) * direction).sum().backward()
    grads = x.grad, result.grad

    weights = {slot: [part.clone().requires_grad_() for part in stack.get(slot, ["x"])["x"]] for slot in slots}
    plain_x, plain_result = x.detach().clone().requires_grad_(), result.detach().clone().requires_grad_()
    parts = [plain_result[:, s.begin : s.end] + site.scales[s.slot]
             * plain_x[:, s.begin : s.end] @ weights[s.slot][0].T @ weights[s.slot][1].T
             for s in site.board.segments]  # fmt: skip
    (torch.cat(parts, 1) * direction).sum().backward()
    torch.testing.assert_close(grads, (plain_x.grad, plain_result.grad))
    for slot in range(4):
        found = stack.views(stack.grads)["x"]
        rank = stack.ranks[slot]
        a, b = found[0][slot], found[1][slot]
        if slot in slots and slot != 1:
            torch.testing.assert_close((a[:rank], b[:, :rank]), tuple(part.grad for part in weights[slot]))
        else:
            assert not a.any() and not b.any()
        assert not a[rank:].any() and not b[:, rank:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adamw_is_torchs(dtype: torch.dtype) -> None:
    """Slots that step at different times, each with its own settings; padding stays zero."""
    ranks = [4, 8, 2]
    stack, _ = stacked(dtype, ranks)
    rates, decays, norms = (1e-2, 3e-4, 1.0), (0.0, 0.1, 2.0), (1.0, 0.0, 0.05)
    own = [[part.clone().contiguous().requires_grad_() for part in stack.get(slot, ["x"])["x"]] for slot in range(3)]
    solo = [torch.optim.AdamW(own[slot], lr=rates[slot], weight_decay=decays[slot], fused=True) for slot in range(3)]
    taken = [0, 0, 0]
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
            taken[slot] += 1
            updates.append(Update(slot, taken[slot], rates[slot], decays[slot], norms[slot]))
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
