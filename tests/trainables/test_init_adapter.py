"""A trial that goes on from an adapter begins with its weights, and nothing else may be given as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.sft import SFT
from tuner.contract import Assignment, Fault, Group, InputError, Reason

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def adapter(program: Callable[..., SFT], tmp_path: Path) -> Path:
    """The adapter of a trial of 6 steps."""
    return trained(program(train={"max_steps": 6, "learning_rate": 1e-2}), tmp_path / "first")[0]


def trained(program: SFT, place: Path, **more: Any) -> tuple[Path, list[float | None]]:
    """Trains one trial; its adapter and its losses."""
    place.mkdir()
    program.start(Assignment(0, {}, 7, (0.5, 1.0), str(place), **more))
    curve = [program.step()]
    while not curve[-1].done:
        curve.append(program.step())
    program.stop()
    return place / "adapter", [evaluation.eval_loss for evaluation in curve]


def test_it_begins_where_the_adapter_ended(program: Callable[..., SFT], adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    made = program(train={"max_steps": 6, "learning_rate": 1e-2, "init_adapter": str(adapter)})
    place = tmp_path / "second"
    place.mkdir()
    made.start(Assignment(0, {}, 8, (0.5, 1.0), str(place)))
    assert made.trial is not None
    from peft import get_peft_model_state_dict

    begins = get_peft_model_state_dict(made.trial.trainer.model, save_embedding_layers=False)
    saved = load_file(adapter / "adapter_model.safetensors")
    assert begins.keys() == saved.keys() and any("lora_B" in name for name in saved)
    assert all((begins[name] == saved[name]).all() for name in saved)
    made.step()
    made.stop()
    assert "adapter" in made.preparation.facts["made_of"]


def test_its_first_loss_is_the_adapters(program: Callable[..., SFT], tmp_path: Path) -> None:
    """With steps so small that the loss hardly moves; a new adapter begins at the base's loss."""
    adapter, learned = trained(program(train={"max_steps": 30, "learning_rate": 1e-2}), tmp_path / "first")
    small = {"max_steps": 6, "learning_rate": 1e-5}
    _, on = trained(program(train={**small, "init_adapter": str(adapter)}), tmp_path / "on")
    _, anew = trained(program(train=small), tmp_path / "anew")
    best = min(loss for loss in learned if loss is not None)
    assert on[0] == pytest.approx(best, abs=2e-3) and anew[0] is not None and anew[0] > best + 0.1


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"lora_r": 8}, "the adapter has r 4, and the settings say 8"),
        ({"lora_alpha_mode": "rslora"}, "the adapter has use_rslora False, and the settings say True"),
        ({"lora_alpha": 5}, "the adapter has lora_alpha 32, and the settings say 5"),
    ],
)
def test_settings_of_another_adapter(
    sft_settings: Callable[..., dict[str, Any]], adapter: Path, train: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        SFT.notes(sft_settings(train={"init_adapter": str(adapter), **train}), ())


def test_what_is_no_adapter_of_this_base(
    sft_settings: Callable[..., dict[str, Any]], adapter: Path, tmp_path: Path
) -> None:
    settings = sft_settings(train={"init_adapter": str(adapter)})
    SFT.notes(settings, ())
    with pytest.raises(InputError, match="has its own lora_r, and the space searches it"):
        SFT.notes(settings, {"lora_r", "learning_rate"})
    assert "init_adapter" in (SFT.packs(settings, {}) or "")
    assert "init_adapter" in (SFT.spreads(settings, {}, Group(0, 2, "fsdp")) or "")
    assert SFT.spreads(settings, {}, Group(0, 2, "ddp")) is None
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/other"}))
    with pytest.raises(InputError, match="one of the base org/other, and the base is"):
        SFT.notes(settings, ())
    for damage in (lambda: (adapter / "adapter_model.safetensors").unlink(), lambda: shutil.rmtree(adapter)):
        damage()
        with pytest.raises(InputError, match=r"no PEFT adapter|incomplete|one of the base"):
            SFT.notes(settings, ())


def test_weights_of_other_layers_end_the_search(program: Callable[..., SFT], adapter: Path, tmp_path: Path) -> None:
    made = program(train={"max_steps": 6, "target_modules": "attention", "init_adapter": str(adapter)})
    place = tmp_path / "second"
    place.mkdir()
    with pytest.raises(Fault, match="is not on the same layers, or not of the same size") as found:
        made.start(Assignment(0, {}, 8, (0.5, 1.0), str(place)))
    assert found.value.reason is Reason.CONFIG
    made.stop()
    (adapter / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(Fault, match="cannot be read"):
        made.start(Assignment(1, {}, 8, (0.5, 1.0), str(place)))
