"""Steps captured as CUDA graphs. Run by hand: pytest -m gpu tests/gpu -s"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.packed.bench import Bench, Make, assert_same, assignment, drive, take
from trainables.packed import cuda_graphs
from trainables.packed.cuda_graphs import CudaGraphs
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
    return Bench(sft_settings(train={"learning_rate": 1e-3, "max_steps": 24}), tmp_path_factory.mktemp("graphs"))


def run(bench: Bench, folder: Path, *, capture: bool) -> tuple[Any, dict[int, list[Evaluation]], torch.Tensor]:
    """Runs three trials, one of which another replaces in the middle; gives the engine, the curves by slot, and by how
    much the weights changed, [slots, width] float32."""
    engine = bench.engine(3, capture=capture)
    for slot, params in enumerate(TRIALS):
        engine.join(slot, assignment(folder / f"{slot}", params, seed=slot))
    start = engine.stack.weights.float().clone()
    curves: dict[int, list[Evaluation]] = {}
    take(engine, curves, limit=12)
    captured = dict(engine.graphs.captured)
    engine.leave(1)
    engine.join(1, assignment(folder / "next", SUCCESSOR, seed=7))
    start[1] = engine.stack.weights[1].float()
    assert engine.graphs.captured == captured, "graphs outlive a trial"
    curves.pop(1, None)
    assert drive(engine, curves) == {}
    return engine, curves, engine.stack.weights.float() - start


def test_a_replayed_step_is_the_step(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses and adapters as with the same batches one by one, dropout's masks among it, and losses as with batches
    that are brought to no shapes; up to what differs from run to run."""
    replayed = []
    kept = cuda_graphs.Replay.forward
    monkeypatch.setattr(
        cuda_graphs.Replay, "forward", staticmethod(lambda ctx, *rest: (replayed.append(1), kept(ctx, *rest))[1])
    )
    engine, ours, moved = run(bench, tmp_path / "captured", capture=True)
    assert engine.uses_graphs and engine.graphs.captured and len(replayed) >= 12, len(replayed)
    print(f"{len(replayed)} steps replayed from {len(engine.graphs.captured)} graphs")
    monkeypatch.setattr(CudaGraphs, "_capture", lambda *_: False)
    _, theirs, plain = run(bench, tmp_path / "one by one", capture=True)
    _, others, _ = run(bench, tmp_path / "as they come", capture=False)
    for slot in range(3):
        difference = ((moved[slot] - plain[slot]).norm() / plain[slot].norm()).item()
        print(f"slot {slot}: losses {[c[slot][-1].eval_loss for c in (ours, theirs, others)]}, moved {difference:.4f}")
        assert_same(ours[slot], theirs[slot], 5e-3)
        assert difference < 0.1  # two draws of masks: 0.2 over a 1.5B base
        if "lora_dropout" not in (TRIALS[slot] if slot != 1 else SUCCESSOR):
            assert_same(ours[slot], others[slot], 2e-2)


def test_one_trial_is_equal_to_the_bit(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = []
    for name in ("captured", "one by one"):
        engine = bench.engine(1)
        engine.join(0, assignment(tmp_path / name, {"lora_r": 8, "lora_dropout": 0.1, "max_steps": 12}, seed=0))
        curves: dict[int, list[Evaluation]] = {}
        assert drive(engine, curves) == {}
        assert bool(engine.graphs.captured) is (name == "captured")
        adapters.append(engine.stack.weights.clone())
        monkeypatch.setattr(CudaGraphs, "_capture", lambda *_: False)
    assert adapters[0].equal(adapters[1])


def test_what_cannot_be_captured_runs_as_ever(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pass that looks at a number on the GPU: said once, and the trial trains on."""
    engine = bench.engine(1)
    plain = engine.graphs._run

    def looks(batch: Any) -> Any:
        hidden = plain(batch)
        hidden.sum().item()
        return hidden

    monkeypatch.setattr(engine.graphs, "_run", looks)
    engine.join(0, assignment(tmp_path / "0", TRIALS[0], seed=0))
    curves: dict[int, list[Evaluation]] = {}
    with caplog.at_level(logging.WARNING):
        assert drive(engine, curves) == {}
    assert curves[0][-1].done and not engine.graphs.enabled and not engine.graphs.captured
    assert sum("CUDA graphs" in record.getMessage() for record in caplog.records) == 1
    torch.rand(1, device="cuda")  # generators know that nothing is being captured
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_without_room_nothing_is_captured(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 80 << 30))
    engine = bench.engine(1)
    engine.join(0, assignment(tmp_path / "0", TRIALS[0], seed=0))
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    assert curves[0][-1].done and engine.graphs.enabled and not engine.graphs.captured


def test_graphs_make_way_for_a_larger_batch(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine(2)
    engine.join(0, assignment(tmp_path / "0", TRIALS[1], seed=0))
    curves: dict[int, list[Evaluation]] = {}
    take(engine, curves, limit=8)
    assert engine.graphs.captured
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 80 << 30))
    engine.join(1, assignment(tmp_path / "1", TRIALS[0], seed=1))
    assert engine.graphs.captured, "a trial of a rank that there was costs none"
    assert drive(engine, curves) == {}
    assert curves[0][-1].done and curves[1][-1].done and not engine.graphs.captured


def test_where_memory_gives_out_graphs_go_and_the_trials_stay(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and in an evaluation: run once more, without graphs, to the same numbers."""
    curves: list[dict[int, list[Evaluation]]] = []
    gone: list[bool] = []
    for name in ("plenty", "tight"):
        engine = bench.engine(1)
        losses = engine.packed.head.losses

        def tight(hidden: Any, batch: Any, engine: Any = engine, losses: Any = losses) -> Any:
            training = torch.is_grad_enabled()
            if engine.graphs.captured and training not in gone:
                gone.append(training)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more")
            return losses(hidden, batch)

        if name == "tight":
            monkeypatch.setattr(engine.packed.head, "losses", tight)
        engine.join(0, assignment(tmp_path / name, TRIALS[0], seed=0))
        curves.append({})
        assert drive(engine, curves[-1]) == {}
    assert sorted(gone) == [False, True]
    assert_same(curves[0][0], curves[1][0], 5e-3)


def test_what_is_given_back_is_all_of_it(bench: Bench, tmp_path: Path) -> None:
    engine = bench.engine(1)
    held = []
    for number in range(4):
        engine.join(0, assignment(tmp_path / f"{number}", TRIALS[0], seed=number))
        take(engine, {}, limit=8)
        assert engine.graphs.captured
        engine.leave(0)
        engine.graphs.clear()
        held.append(torch.cuda.memory_allocated())
    print(f"allocated after each: {held}")
    assert held[-1] - held[1] < 8 << 20  # a product's workspace is 32 MiB
