"""The base of a real search is changed, damaged or incomplete: it is refused with a message before anything trains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import driving, invariants
from tests.chaos.driving import Shared, shared_ray
from tests.chaos.faults import Count
from tuner.results.ledger import Kind

DEMO = driving.ROOT / "tuner" / "demo"
pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with shared_ray() as made:
        yield made


def arguments(base: Path) -> list[str]:
    """The arguments of a small search on `base`."""
    return [
        "--model", str(base), "--data", str(DEMO / "train.jsonl"), "--validation", str(DEMO / "validation.jsonl"),
        "--space", "learning_rate", "--num-trials", "2", "--scheduler", "none", "--max-concurrent-trials", "1",
        "--set", "train.max_steps=20", "--set", "data.max_validation_rows=32", "--set", "model.dtype=float32",
        "--name", "run",
    ]  # fmt: skip


def change(base: Path, *, drop: str = "", triple: str = "") -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(base / "model.safetensors")
    weights = {name: value * 3 if name == triple else value for name, value in weights.items() if name != drop}
    save_file(weights, base / "model.safetensors", {"format": "pt"})


def test_a_base_that_changed_between_a_kill_and_a_resume(shared: Shared, tmp_path: Path, fault: Count) -> None:
    base = Path(shutil.copytree(DEMO / "base", tmp_path / "base"))
    driver = driving.start(tmp_path, *arguments(base), environment={"OMP_NUM_THREADS": "1"}, on=shared)
    driver.wait(lambda events: any(e.event is Kind.EVALUATION and e.number == 1 for e in events))
    before = driver.events
    started = driver.kill()
    whole = (base / "model.safetensors").read_bytes()
    change(base, triple="model.layers.1.input_layernorm.weight")

    code, _, errors = driving.resume(tmp_path, on=shared).end()
    assert code == 2 and "Traceback" not in errors, errors
    assert f"the base {base} changed since the search began" in errors and "model.safetensors was" in errors
    assert "--accept-changes" in errors
    invariants.check_kept(before, driver.events)

    (base / "model.safetensors").write_bytes(whole)
    driver = driving.resume(tmp_path, environment={"OMP_NUM_THREADS": "1"}, on=shared)
    code, _, errors = driver.end()
    assert code == 0, errors
    invariants.check(driver.folder, num_trials=2, exit_code=code, family=[*started, *driver.family])
    fault("a base that changed between a kill and a resume")


def test_a_base_without_its_head(shared: Shared, tmp_path: Path, fault: Count) -> None:
    base = Path(shutil.copytree(DEMO / "base", tmp_path / "base"))
    change(base, drop="lm_head.weight")
    driver = driving.start(tmp_path, *arguments(base), on=shared)
    code, _, errors = driver.end()
    assert code == 2 and "Traceback" not in errors, errors
    assert "lacks 1 of the" in errors and "lm_head.weight" in errors
    assert not driver.folder.exists(), "nothing ran: the name is free"
    fault("a base whose checkpoint lacks a weight")
