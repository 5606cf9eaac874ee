"""A layer with several adapters gives what autograd gives."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.packed.one_layer import segments_batch, stacked
from trainables.packed import multi_lora
from trainables.packed.batches import Segment


@pytest.mark.parametrize("slots", [(0, 1, 2, 3), (1, 3), (2,)], ids=str)
@pytest.mark.parametrize("form", ["each", "batched"])
def test_a_layer_is_the_base_and_each_slots_own_adapter(
    slots: tuple[int, ...], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and all three gradients, both forms, against autograd; slot 1 leaves this layer out."""
    monkeypatch.setattr(multi_lora, "form", lambda context, like: form)
    stack, layer = stacked(torch.float64, [4, 3, 9, 1])
    stack.put(1, {}, 3)
    layer.rescale(1, 0.0)
    segments = tuple(Segment(slot, (7,), 7 * at, 7 * at + 7) for at, slot in enumerate(slots))
    layer.context.show(segments_batch(segments), training=True)
    x, direction = (torch.randn(1, 7 * len(slots), n, dtype=torch.float64) for n in (6, 5))
    x.requires_grad_()
    (multi_lora.MultiLoRALinear.apply(x, layer.anchor, layer) * direction).sum().backward()

    weights = {slot: [part.clone().requires_grad_() for part in stack.get(slot, ["x"])["x"]] for slot in slots}
    plain = x.detach().clone().requires_grad_()
    parts = [layer.base(plain[:, s.begin : s.end]) + layer.scales[s.slot]
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
