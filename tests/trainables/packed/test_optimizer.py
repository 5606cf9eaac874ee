"""AdamW over a stack gives what torch's gives."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.packed.one_layer import stacked
from trainables.packed import optimizer
from trainables.packed.optimizer import Update


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
