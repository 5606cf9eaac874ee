"""The gradient of a frozen layer's inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers.pytorch_utils import Conv1D

from trainables.packed.frozen_linear import frozen_linear
from tuner.contract import Fault


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
    frozen = frozen_linear("x", layer)
    assert (frozen.shape.inputs, frozen.shape.outputs) == (64, 32)
    torch.testing.assert_close(frozen.input_grad(direction).to(x.dtype), x.grad)


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(Fault, match="Bilinear"):
        frozen_linear("x", torch.nn.Bilinear(2, 2, 2))
