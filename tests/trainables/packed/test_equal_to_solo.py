"""A packed trial equals its solo run in losses and adapter, whatever its neighbours are and whenever they join and
leave."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.trainables.packed.bench import Bench, Make, assert_same, assignment, drive, take
from trainables.packed import batches, engine, evaluating, multi_lora
from trainables.packed.batches import ShapeBuckets
from trainables.packed.cuda_graphs import CudaGraphs
from tuner.contract import Evaluation

NEIGHBOURS: list[dict[str, Any]] = [
    {},
    {
        "lora_r": 12, "lora_alpha_mode": "2r", "effective_batch_size": 12, "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine", "warmup_ratio": 0.3, "target_modules": "mlp",
    },
    {
        "lora_r": 3, "lora_alpha_mode": "rslora", "target_modules": "attention", "effective_batch_size": 5,
        "weight_decay": 0.5, "num_train_epochs": 2.0, "max_grad_norm": 0.05, "init_lora_weights": "gaussian",
        # At the others' 5e-3 it is chaotic: a single rounding changes its loss by 1e-3 after 16 steps
        "learning_rate": 1e-3,
    },
    {
        "lora_r": 16, "effective_batch_size": 16, "lr_scheduler_type": "polynomial", "max_grad_norm": 0.0,
        "target_modules": ["q_proj", "down_proj"], "max_steps": 5, "init_lora_weights": "orthogonal",
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def together(bench: Bench) -> dict[int, list[Evaluation]]:
    """The four trials of NEIGHBOURS, packed together."""
    engine = bench.engine(4)
    checksum = engine.checksum()
    for slot, params in enumerate(NEIGHBOURS):
        engine.join(slot, assignment(bench.folder / f"packed-{slot}", params, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    assert engine.checksum() == checksum
    return curves


@pytest.mark.parametrize("slot", range(4))
def test_losses(bench: Bench, together: dict[int, list[Evaluation]], slot: int) -> None:
    assert_same(together[slot], bench.solo(NEIGHBOURS[slot], seed=slot))


@pytest.mark.parametrize(
    ("max_length", "bucketed"),
    [(20, True), *(pytest.param(*both, marks=pytest.mark.slow) for both in ((20, False), (64, False), (64, True)))],
)
def test_padding_is_no_part_of_a_trial(
    sft_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_length: int, bucketed: bool
) -> None:
    """As on a GPU: segments padded to one length or to a few shapes, products batched and grouped, and dropout."""
    bench = Bench(sft_settings(data={"max_length": max_length}), tmp_path / "bench")
    shapes = ShapeBuckets()
    monkeypatch.setattr(CudaGraphs, "buckets", lambda *_: shapes if bucketed else None)
    cpu, gpu = torch.device("cpu"), SimpleNamespace(type="cuda")
    to = batches._to
    monkeypatch.setattr(batches, "_to", lambda _, arrays: to(cpu, arrays))
    for module in (engine, evaluating):
        monkeypatch.setattr(
            module, "collate", lambda parts, rows, pad, _, *more: batches.collate(parts, rows, pad, gpu, *more)
        )
    forms: Counter[str] = Counter()

    def form(context: Any, _: Any) -> str:
        chosen = "batched" if context.uniform else "grouped"
        forms[chosen] += 1
        return chosen

    monkeypatch.setattr(multi_lora, "form", form)
    chosen = {
        0: {"effective_batch_size": 4, "learning_rate": 1e-3},
        1: {"effective_batch_size": 4, "lora_dropout": 0.5, "max_steps": 6},
        3: {"effective_batch_size": 4, "lora_r": 12, "target_modules": "mlp", "learning_rate": 1e-3},
    }
    pack = bench.engine(4)
    for slot, params in chosen.items():
        pack.join(slot, assignment(tmp_path / f"{slot}", params, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    assert drive(pack, curves) == {}
    assert forms["batched"] and forms["grouped"]
    for slot, params in chosen.items():
        assert_same(curves[slot], bench.solo(params, seed=slot))


@pytest.mark.parametrize("slot", range(4))
def test_adapters(bench: Bench, together: dict[int, list[Evaluation]], slot: int) -> None:
    """The same files, with the same config and the weights of the best evaluation."""
    from safetensors.torch import load_file

    solo = bench.solo(NEIGHBOURS[slot], seed=slot)
    best = min(range(3), key=lambda at: solo[at].eval_loss or 0.0)
    ours, theirs = (Path(curve[best].adapter or "") for curve in (together[slot], solo))
    assert [e.adapter is None for e in together[slot]] == [e.adapter is None for e in solo]
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    configs = [json.loads((place / "adapter_config.json").read_text()) for place in (ours, theirs)]
    for config in configs:
        config["target_modules"] = sorted(config["target_modules"])  # a set, written in any order
    assert configs[0] == configs[1]
    packed, alone = (load_file(place / "adapter_model.safetensors") for place in (ours, theirs))
    assert packed.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(packed[name], tensor, atol=1e-5, rtol=1e-4)


def test_trials_that_begin_alike(bench: Bench, tmp_path: Path) -> None:
    """PEFT is asked once; what is saved differs where the trials do, and is what PEFT says of each."""
    engine = bench.engine(3)
    built: list[Any] = []
    build = engine._initializer._build
    engine._initializer._build = lambda config, seed: built.append(config) or build(config, seed)
    params = [{"lora_dropout": 0.2, "max_steps": 3}, {"max_steps": 3}, {"max_steps": 3, "lora_alpha_mode": "2r"}]
    for slot, own in enumerate(params):
        engine.join(slot, assignment(tmp_path / str(slot), own, seed=7))
    assert len(built) == 2
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    for slot, own in enumerate(params):
        assert_same(curves[slot], bench.solo(own, seed=7))
        ours, theirs = (
            json.loads((Path(curve[0].adapter or "") / "adapter_config.json").read_text())
            for curve in (curves[slot], bench.solo(own, seed=7))
        )
        for config in (ours, theirs):
            config["target_modules"] = sorted(config["target_modules"])
        assert ours == theirs


def test_setup_is_what_a_solo_trial_says(bench: Bench, tmp_path: Path) -> None:
    from trainables.sft import SFT

    engine = bench.engine(2)
    program = SFT(bench.settings, bench.preparation)
    for number, params in enumerate(NEIGHBOURS[:3]):
        task = assignment(tmp_path / str(number), params, seed=0)
        assert engine.join(number % 2, task) == program.start(task)
    program.stop()


def test_dropout_masks_are_the_solo_runs(bench: Bench) -> None:
    """Each slot draws from a stream of its own, at its own length, as a solo run draws from the global one."""
    engine = bench.engine(3)
    params = [{"lora_dropout": 0.3, "effective_batch_size": 6, "max_steps": 13}, {"effective_batch_size": 4},
              {"lora_dropout": 0.1, "target_modules": "attention"}]  # fmt: skip
    for slot, own in enumerate(params):
        engine.join(slot, assignment(bench.folder / f"dropout-{slot}", own, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    for slot, own in enumerate(params):
        assert_same(curves[slot], bench.solo(own, seed=slot))


def test_accumulation(sft_settings: Make, tmp_path: Path) -> None:
    """Windows of different lengths, cut short by the end of an epoch in different places."""
    small = Bench(sft_settings(train={"per_device_train_batch_size": 2, "per_device_eval_batch_size": 5}), tmp_path)
    engine = small.engine(3)
    params = [{"effective_batch_size": 8}, {"effective_batch_size": 2}, {"effective_batch_size": 10, "max_steps": 9}]
    for slot, own in enumerate(params):
        engine.join(slot, assignment(tmp_path / f"packed-{slot}", own, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    for slot, own in enumerate(params):
        assert_same(curves[slot], small.solo(own, seed=slot))


def test_joining_and_leaving_in_the_middle(bench: Bench, tmp_path: Path) -> None:
    """A slot is left in the middle of its trial and taken by one with a higher rank than there is room for."""
    engine = bench.engine(2)
    engine.join(0, assignment(tmp_path / "stays", NEIGHBOURS[2], seed=2))
    curves: dict[int, list[Evaluation]] = {}
    take(engine, curves, limit=3)
    engine.join(1, assignment(tmp_path / "leaves", NEIGHBOURS[0], seed=5))
    take(engine, curves)
    take(engine, curves, limit=4)
    engine.leave(1)
    assert engine.free == [1]
    gone = curves.pop(1)
    take(engine, curves, limit=1)
    engine.join(1, assignment(tmp_path / "comes", NEIGHBOURS[3], seed=3))
    drive(engine, curves)
    assert_same(curves[0], bench.solo(NEIGHBOURS[2], seed=2))
    assert_same(curves[1], bench.solo(NEIGHBOURS[3], seed=3))
    assert_same(gone, bench.solo(NEIGHBOURS[0], seed=5)[: len(gone)])


def test_nothing_is_left_behind(bench: Bench, tmp_path: Path) -> None:
    """Left in the middle of a window: its losses, gradients, moments and dropout are not its successor's."""
    engine = bench.engine(1)
    params = {"effective_batch_size": 16, "lora_r": 12, "lora_dropout": 0.5, "max_grad_norm": 0.0}
    engine.join(0, assignment(tmp_path / "left", params, seed=1))
    assert engine.advance(limit=3) == []
    assert engine.trials[0].mid_window and engine.stack.grads[0].any()
    engine.join(0, assignment(tmp_path / "next", {"max_steps": 3}, seed=9))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    assert_same(curves[0], bench.solo({"max_steps": 3}, seed=9))


def draw(chance: random.Random) -> dict[str, Any]:
    """Draws the parameters of a trial."""
    return {
        "learning_rate": 10 ** chance.uniform(-4, -1.5),
        "lora_r": chance.choice([1, 4, 7, 16, 24]),
        "lora_alpha_mode": chance.choice(["fixed", "2r", "rslora"]),
        "target_modules": chance.choice(["all-linear", "attention", "mlp", ["v_proj"]]),
        "effective_batch_size": chance.choice([3, 8, 16]),
        "warmup_ratio": chance.choice([0.0, 0.1, 0.5]),
        "lr_scheduler_type": chance.choice(["linear", "constant_with_warmup", "inverse_sqrt", "cosine_with_restarts"]),
        "weight_decay": chance.choice([0.0, 0.1]),
        "max_grad_norm": chance.choice([0.0, 0.3, 1.0]),
        **chance.choice([{"max_steps": chance.randint(1, 8)}, {"num_train_epochs": chance.choice([0.5, 1.25])}]),
    }


def rounding(bench: Bench, params: dict[str, Any], own: int) -> list[float]:
    """How far rounding alone moves each loss of the solo run: the most by which a learning rate that is 1e-7 larger or
    smaller moves it. At a learning rate of 0.02 on this base that can be 9e-3 at step 15, from 5e-7 at step 8."""
    true = bench.solo(params, own)
    near = [bench.solo({**params, "learning_rate": params["learning_rate"] * by}, own) for by in (1 - 1e-7, 1 + 1e-7)]
    return [max(abs(run[at].eval_loss - e.eval_loss) for run in near) for at, e in enumerate(true)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_any_neighbours_with_any_comings_and_goings(bench: Bench, tmp_path: Path, seed: int) -> None:
    """Every trial that is not taken away is its solo run; what was reported of the others was theirs too."""
    chance = random.Random(seed)
    engine = bench.engine(3, run_ahead=chance.choice([0, 2, 8]))
    waiting = [(draw(chance), chance.randrange(1000)) for _ in range(5)]
    held: dict[int, tuple[dict[str, Any], int, list[Evaluation]]] = {}
    finished = []
    unconfirmed: list[int] = []
    while waiting or held:
        for slot in engine.free:
            if waiting and (not held or chance.random() < 0.7):
                params, own = waiting.pop()
                engine.join(slot, assignment(tmp_path / f"{len(waiting)}", params, own))
                held[slot] = (params, own, [])
        outcomes = engine.advance(limit=chance.choice([1, 3, None]))
        for slot, outcome in outcomes:
            assert isinstance(outcome, Evaluation)
            held[slot][2].append(outcome)
            if outcome.done or chance.random() < 0.15:
                engine.leave(slot)
                finished.append(held.pop(slot))
            else:
                unconfirmed.append(slot)
        if not outcomes or chance.random() < 0.5:
            for slot in unconfirmed:
                engine.confirm(slot)
            unconfirmed.clear()
    assert len(finished) == 5
    for params, own, curve in finished:
        assert_same(curve, bench.solo(params, own)[: len(curve)], moved=partial(rounding, bench, params, own))


def test_over_nf4(sft_settings: Make, tmp_path: Path) -> None:
    """Adapters are bf16 there, as SFTTrainer has them: equal to its rounding, 2^-8 of a step."""
    quantized = {"quantization": {"kind": "nf4", "compute_dtype": "float32"}}
    small = Bench(sft_settings(model=quantized), tmp_path)
    engine = small.engine(2)
    params = [{"max_steps": 4}, {"max_steps": 4, "lora_r": 12, "effective_batch_size": 6, "learning_rate": 1e-3}]
    for slot, own in enumerate(params):
        engine.join(slot, assignment(tmp_path / f"packed-{slot}", own, seed=slot))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    for slot, own in enumerate(params):
        assert_same(curves[slot], small.solo(own, seed=slot), tolerance=5e-4)
