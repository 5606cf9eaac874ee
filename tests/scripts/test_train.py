"""The script that shows one training run: short, and it learns."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.py"


def test_it_trains_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 60
    spec = importlib.util.spec_from_file_location("one_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.main(["--steps", "20", "--learning-rate", "3e-3", "--to", str(tmp_path / "adapter")])
    assert 0 < found["trainable"] < 0.1, "the adapter alone"
    assert 3.5 < found["after"] < found["before"] - 0.5 < 6
    out = capsys.readouterr().out
    assert "trainable: 94,208 of 1,143,424 parameters (8.24%)" in out
    assert f"{found['before']:.3f} before, {found['after']:.3f} after 20 steps" in out

    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert {name for name, weights in model.named_parameters() if "lora_B" in name and not weights.any()} == set()
