"""The probe finds out whether trials on a base would change each other: it refuses leaky bases, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.trainables.packed.architectures import GOOD, LEAKY, build
from tests.trainables.packed.bench import Bench, Make
from trainables.packed import attention, bases, probe
from trainables.packed.packed_model import PackedModel
from trainables.packed.rows import FlatRows
from trainables.packed.stack import Stack
from tuner.contract import Reason, Unpackable

LONGEST = 300


def rows() -> FlatRows:
    ids = numpy.random.default_rng(1).integers(2, 512, size=2000)
    return FlatRows(ids, ids.copy(), numpy.array([0, LONGEST, 2000]))


def verdict(model: Any) -> str | None:
    """Why no trials can be packed on a base; None where they can."""
    try:
        bases.check(model)
        alone = probe.SoloReference(model, rows(), LONGEST)
        packed = PackedModel(model, capture=False)
        shapes = {name: layer.shape for name, layer in packed.layers.items()}
        for layer in packed.layers.values():
            layer.allocate(probe.SLOTS)
        compute = torch.bfloat16 if packed.autocast else torch.float32
        probe.require_independent(packed, Stack(shapes, probe.SLOTS, torch.float32, compute, packed.device), alone)
    except Unpackable as why:
        assert why.reason is Reason.CONFIG and type(model).__name__ in why.message
        return why.message.partition(": ")[2]
    return None


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_sound_base_is_packed(name: str) -> None:
    assert verdict(build(*GOOD[name])) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lfm2", "a row of 300 tokens behind one of 17 comes out otherwise than alone"),
        ("granite hybrid", "a row of 300 tokens behind one of 17 comes out otherwise than alone"),
        ("mistral beyond its window", "its attention sees 64 tokens, and rows are longer"),
        ("deepseek_v32 without experts", "its attention reads the mask itself, and rows in a line have none"),
        ("gpt2", "its own dropout (transformer.drop.p) draws from one stream for all of them"),
    ],
)
def test_a_base_whose_trials_would_feel_each_other(name: str, told: str) -> None:
    assert str(verdict(build(*LEAKY[name]))).startswith(told)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_every_sound_base(name: str) -> None:
    assert verdict(build(*GOOD[name])) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKY)
def test_every_leaky_base(name: str) -> None:
    assert verdict(build(*LEAKY[name])) is not None


class Leak(torch.nn.Module):
    """A layer that adds a share of the token before, as a convolution does."""

    def __init__(self, layer: Any, share: float, *, back: bool = False) -> None:
        super().__init__()
        self.layer, self.share, self.back = layer, share, back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        before = torch.nn.functional.pad(out, (0, 0, 1, 0))[:, :-1]
        # back: only the gradient reaches the token before, the result does not have it
        return out + self.share * (before - before.detach() if self.back else before)


@pytest.mark.parametrize(("share", "back"), [(1e-3, False), (1e-2, True)])
def test_a_leak_that_is_small_or_in_the_gradient_alone(share: float, back: bool) -> None:
    model = build(*GOOD["llama"])
    mlp = model.model.layers[1].mlp
    mlp.act_fn = Leak(mlp.act_fn, share, back=back)
    assert "a row of" in str(verdict(model))


def test_a_leak_below_rounding_shows_when_neighbours_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in bf16, where a row in a line never comes out to the bit as alone."""
    monkeypatch.setattr(probe, "_ROUNDING", {"fp32": 0.5, "bf16": 0.5})
    model = build(*GOOD["llama"])
    mlp = model.model.layers[1].mlp
    mlp.act_fn = Leak(mlp.act_fn, 1e-3)
    assert "changes with the other rows of the batch" in str(verdict(model))


def test_a_path_that_is_wrong_for_a_row_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that is handed no scale, say."""
    call = attention.RowAttention.__call__
    monkeypatch.setattr(
        attention.RowAttention, "__call__", lambda self, *given, **more: call(self, *given, **{**more, "scaling": 1.0})
    )
    assert "by itself in the engine comes out otherwise than alone" in str(verdict(build(*GOOD["qwen2"])))


@pytest.mark.parametrize(("name", "number"), [("logit_scale", 0.0625), ("final_logit_softcapping", 0.5)])
def test_an_output_layer_that_sfttrainer_scales_or_caps_and_the_base_does_not(name: str, number: float) -> None:
    """As Aya Vision and Cohere 2 Vision have it."""
    model = build(*GOOD["llama"])
    setattr(model.config, name, number)
    told = f"SFTTrainer's loss changes logits by {name} {number:g} of the config, and its own forward does not"
    assert str(verdict(model)).startswith(f"{told}: a row's loss differs (by ")


def test_an_output_layer_that_the_base_alone_caps() -> None:
    told = "its own forward computes other logits than SFTTrainer's output layer (its config has logits_soft_cap 30)"
    assert str(verdict(build(*LEAKY["recurrent_gemma"]))).startswith(told)


def test_a_base_that_cannot_take_rows_in_a_line() -> None:
    model = build(*GOOD["llama"])
    take = model.model.forward

    def forward(input_ids: Any, position_ids: Any = None, **more: Any) -> Any:
        if position_ids is not None:
            raise TypeError("'NoneType' object is not subscriptable")
        return take(input_ids=input_ids, **more)

    model.model.forward = forward
    assert "its forward pass fails with rows in a line (TypeError: 'NoneType'" in str(verdict(model))


def test_over_nf4(sft_settings: Make, tmp_path: Path) -> None:
    """A sound base in 4 bit stands; its adapters and the base are as if nobody had asked."""
    bench = Bench(sft_settings(model={"quantization": {"kind": "nf4", "compute_dtype": "float32"}}), tmp_path)
    engine = bench.engine(2)
    assert engine.free == [0, 1] and not engine.stack.width
