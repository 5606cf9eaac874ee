"""Steps recorded as CUDA graphs. Run by hand: pytest -m gpu tests/gpu -s"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.packed.bench import Bench, Make, assert_same, assignment, drive, take
from trainables.packed import replays
from trainables.packed.replays import Replays
from tuner.contract import Evaluation

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

TRIALS: list[dict[str, Any]] = [
    {"lora_r": 8, "max_steps": 24},
    {"lora_r": 16, "lora_dropout": 0.2, "max_steps": 24, "lora_alpha_mode": "rslora"},
    {"lora_r": 4, "target_modules": "attention", "effective_batch_size": 4, "max_steps": 24},
]
SUCCESSOR = {"lora_r": 16, "lora_dropout": 0.2, "max_steps": 24, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def bench(sft_settings: Make, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(sft_settings(train={"learning_rate": 1e-3, "max_steps": 24}), tmp_path_factory.mktemp("replays"))


def run(bench: Bench, folder: Path) -> tuple[Any, dict[int, list[Evaluation]], torch.Tensor]:
    """Three trials, one of them left for another in the middle."""
    engine = bench.engine(3, record=True)
    for slot, params in enumerate(TRIALS):
        engine.join(slot, assignment(folder / f"{slot}", params, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    take(engine, curves, limit=12)
    recorded = dict(engine._replays._recorded)
    engine.leave(1)
    engine.join(1, assignment(folder / "next", SUCCESSOR, seed=7))
    assert engine._replays._recorded == recorded, "what was recorded outlives a trial"
    curves.pop(1, None)
    assert drive(engine, curves) == {}
    return engine, curves, engine._stack.weights.float().clone()


def test_a_replayed_step_is_the_step(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and adapters as without recording, the masks of dropout among it, up to what differs from run to run."""
    replayed = []
    kept = replays._Replay.forward
    monkeypatch.setattr(
        replays._Replay, "forward", staticmethod(lambda ctx, *rest: (replayed.append(1), kept(ctx, *rest))[1])
    )
    engine, ours, weights = run(bench, tmp_path / "recorded")
    assert engine._replays.on and len(replayed) >= 12, len(replayed)
    monkeypatch.setattr(Replays, "_record", lambda *_: False)
    _, theirs, plain = run(bench, tmp_path / "plain")
    print(f"{len(replayed)} steps replayed from {len(engine._replays._recorded)} recordings")
    for slot in range(3):
        assert_same(ours[slot], theirs[slot], 2e-2)
        difference = ((weights[slot] - plain[slot]).norm() / plain[slot].norm()).item()
        print(
            f"slot {slot}: loss {ours[slot][-1].eval_loss} and {theirs[slot][-1].eval_loss}, adapters {difference:.4f}"
        )
        assert difference < 0.1


def test_what_cannot_be_recorded_runs_as_ever(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pass that looks at a number on the GPU: said once, and the trial trains on."""
    engine = bench.engine(1, record=True)
    plain = engine._replays._run

    def looks(batch: Any) -> Any:
        hidden = plain(batch)
        hidden.sum().item()
        return hidden

    monkeypatch.setattr(engine._replays, "_run", looks)
    engine.join(0, assignment(tmp_path / "0", TRIALS[0], seed=0))
    curves: dict[int, list[Evaluation]] = {}
    with caplog.at_level(logging.WARNING):
        assert drive(engine, curves) == {}
    assert curves[0][-1].done and not engine._replays.on and not engine._replays._recorded
    assert sum("CUDA graphs" in record.getMessage() for record in caplog.records) == 1
    torch.rand(1, device="cuda")  # generators know that nothing is being recorded


def test_without_room_nothing_is_recorded(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 80 << 30))
    engine = bench.engine(1, record=True)
    engine.join(0, assignment(tmp_path / "0", TRIALS[0], seed=0))
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    assert curves[0][-1].done and engine._replays.on and not engine._replays._recorded
