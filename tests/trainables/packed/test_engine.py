"""Trials that wait, fail, are refused, or are no longer finite, and what happens to their neighbours."""

from __future__ import annotations

import errno
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.packed.bench import Bench, assert_same, assignment, drive, take
from tuner.contract import Evaluation, Fault, InputError, Reason, Unpackable

PARAMS: list[dict[str, Any]] = [
    {"max_steps": 6},
    {"max_steps": 6, "lora_r": 12, "learning_rate": 1e-2},
    {"max_steps": 6, "target_modules": "attention", "max_grad_norm": 0.1},
]


def numbers(curve: list[Evaluation]) -> list[tuple[float | None, ...]]:
    return [(evaluation.train_loss, evaluation.eval_loss) for evaluation in curve]


@pytest.mark.parametrize("batches", [(8, 8, 8), (6, 3, 16)], ids=["equal", "unequal"])
def test_a_slot_that_is_not_finite_leaves_its_neighbours_to_the_bit(
    bench: Bench, tmp_path: Path, batches: tuple[int, ...]
) -> None:
    """From its first step on, through its evaluation, beyond its leaving, and for the trial that comes after it."""
    found = {}
    for name, poison in (("sound", None), ("inf", math.inf), ("nan", math.nan)):
        engine = bench.engine(3)
        for slot, (params, size) in enumerate(zip(PARAMS, batches, strict=True)):
            place = tmp_path / name / str(slot)
            engine.join(slot, assignment(place, {**params, "effective_batch_size": size}, seed=slot))
        if poison is not None:
            engine.stack.weights[1, 5] = poison
        curves: dict[int, list[Evaluation]] = {}
        while len(curves.get(1, [])) < 2:
            assert take(engine, curves) == {}
        engine.leave(1)
        lost = curves.pop(1)
        drive(engine, curves)
        engine.join(1, assignment(tmp_path / name / "next", {"max_steps": 3}, seed=9))
        next_curve: dict[int, list[Evaluation]] = {}
        drive(engine, next_curve)
        assert_same(next_curve[1], bench.solo({"max_steps": 3}, seed=9))
        found[name] = ({slot: numbers(curve) for slot, curve in curves.items()}, engine.stack.weights[[0, 2]].clone())
        if poison is not None:
            assert all(math.isnan(e.eval_loss or 0.0) and math.isnan(e.train_loss or 0.0) for e in lost)
            assert all(e.adapter is None for e in lost)
    for name in ("inf", "nan"):
        assert found[name][0] == found["sound"][0]
        assert found[name][1].equal(found["sound"][1])


@pytest.mark.parametrize("run_ahead", [0, 1, 5])
def test_a_slot_waits_for_the_word(bench: Bench, tmp_path: Path, run_ahead: int) -> None:
    engine = bench.engine(1, run_ahead=run_ahead)
    engine.join(0, assignment(tmp_path, {"max_steps": 8}, seed=0))
    ((slot, first),) = engine.advance()
    assert (slot, first.step) == (0, 2)
    assert engine.advance() == []
    assert engine.trials[0].step == min(2 + run_ahead, 4)  # at 4 is the next evaluation
    assert engine.advance() == []
    curve = [first]
    while not curve[-1].done:
        engine.confirm(0)
        curve += [outcome for _, outcome in engine.advance()]
    assert_same(curve, bench.solo({"max_steps": 8}, seed=0))
    assert engine.advance() == []  # done and not yet taken away
    engine.leave(0)
    assert engine.advance() == []
    with pytest.raises(LookupError):
        engine.confirm(0)


def test_the_adapter_is_that_of_the_evaluation(bench: Bench, tmp_path: Path) -> None:
    """Not that of the steps run ahead, which go on while it is written."""
    from safetensors.torch import load_file

    saved = []
    for run_ahead in (0, 5):
        engine = bench.engine(1, run_ahead=run_ahead)
        engine.join(0, assignment(tmp_path / str(run_ahead), {"max_steps": 8}, seed=0))
        ((_, first),) = engine.advance()
        saved.append(load_file(Path(first.adapter or "") / "adapter_model.safetensors"))
        engine.advance()
        for name, (now, _) in engine.stack.get(0, engine.packed.layers).items():
            assert saved[-1][f"base_model.model.{name}.lora_A.weight"].equal(now) == (run_ahead == 0)
    assert saved[0].keys() == saved[1].keys() and all(saved[0][name].equal(saved[1][name]) for name in saved[0])


def test_nothing_is_written_for_who_has_left(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does anybody hear of it; and what cannot be written is told by the next call."""
    from trainables.packed import peft_adapters

    save, begun, go_on = peft_adapters.save, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Path:
        begun.set()
        assert go_on.wait(20)
        return save(*arguments)

    monkeypatch.setattr(peft_adapters, "save", slow)
    engine = bench.engine(2)
    for slot in range(2):
        engine.join(slot, assignment(tmp_path / str(slot), {"max_steps": 8}, seed=slot))
    assert engine.advance(limit=4) == []
    assert begun.wait(20) and engine.busy
    threading.Timer(0.2, go_on.set).start()
    engine.leave(1)  # its job has not begun
    engine.leave(0)  # and this one is waited for
    assert (tmp_path / "0" / "adapter").exists() and not (tmp_path / "1" / "adapter").exists()
    assert engine.advance() == [] and not engine.busy

    def full(*arguments: Any) -> Path:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(peft_adapters, "save", full)
    engine.join(0, assignment(tmp_path / "full", {"max_steps": 8}, seed=0))
    with pytest.raises(OSError, match="no room"):
        engine.advance()


def test_limit(bench: Bench, tmp_path: Path) -> None:
    engine = bench.engine(1)
    engine.join(0, assignment(tmp_path, {"max_steps": 8}, seed=0))
    assert engine.advance(limit=1) == []
    assert engine.trials[0].step == 1
    assert engine.advance(limit=0) == []
    assert engine.trials[0].step == 1
    assert engine.advance(limit=1) == []  # measured, and being written
    assert engine.trials[0].step == 2
    assert [evaluation.step for _, evaluation in engine.advance()] == [2]


def test_a_frozen_slot_fails_alone(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.packed import optimizer

    engine = bench.engine(2)
    for slot in range(2):
        engine.join(slot, assignment(tmp_path / str(slot), {"max_steps": 6}, seed=slot))
    apply = optimizer.apply

    def stuck(stack: Any, updates: Any) -> Any:
        before = stack.weights[1].clone()
        norms = apply(stack, updates)
        stack.weights[1] = before
        return norms

    monkeypatch.setattr(optimizer, "apply", stuck)
    curves: dict[int, list[Evaluation]] = {}
    faults = drive(engine, curves)
    assert list(faults) == [1]
    assert faults[1].reason is Reason.FROZEN
    assert_same(curves[0], bench.solo({"max_steps": 6}, seed=0))
    assert all(evaluation.step < 6 for evaluation in curves.get(1, []))


def test_an_adapter_without_effect_is_frozen(bench: Bench, tmp_path: Path) -> None:
    """Weights that move, and a loss that does not."""
    engine = bench.engine(2)
    for slot in range(2):
        engine.join(slot, assignment(tmp_path / str(slot), {"max_steps": 6, "weight_decay": 1.0}, seed=slot))
    for layer in engine.packed.layers.values():
        layer.rescale(0, 0.0)
    faults = drive(engine, {})
    assert list(faults) == [0]
    assert faults[0].reason is Reason.FROZEN and "no effect on the loss" in str(faults[0])


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"optim": "adafactor"}, "adafactor"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"max_length": 3}, "cannot be searched"),
    ],
)
def test_what_cannot_be_packed(bench: Bench, tmp_path: Path, params: dict[str, Any], told: str) -> None:
    engine = bench.engine(1)
    with pytest.raises((InputError, Unpackable), match=told):
        engine.join(0, assignment(tmp_path, params, seed=0))
    assert engine.free == [0]


@pytest.mark.parametrize(("target", "kind"), [("embed_tokens", Unpackable), ("query", Fault)])
def test_targets_that_are_no_linear_layer(bench: Bench, tmp_path: Path, target: str, kind: type[Fault]) -> None:
    """One that may train unpacked, and one that the base has not and this trial alone drew. The base is whole
    afterwards."""
    engine = bench.engine(1)
    checksum, tree = engine.checksum(), engine._resident.tree()
    with pytest.raises(Fault) as caught:
        engine.join(0, assignment(tmp_path / "bad", {"target_modules": [target]}, seed=0))
    assert type(caught.value) is kind and caught.value.reason is (Reason.CONFIG if kind is Unpackable else Reason.ERROR)
    assert (engine.checksum(), engine._resident.tree(), engine.free) == (checksum, tree, [0])
    engine.join(0, assignment(tmp_path / "good", {"max_steps": 3}, seed=9))
    curves: dict[int, list[Evaluation]] = {}
    drive(engine, curves)
    assert_same(curves[0], bench.solo({"max_steps": 3}, seed=9))


def test_what_the_space_may_draw_is_asked_before_the_first_trial(bench: Bench) -> None:
    """Parameters that differ in their modules; one that the base has not is told as a fault of the set-up."""
    engine = bench.engine(1)
    assert engine.refuses({}) is None and engine.refuses({"target_modules": "mlp", "lora_r": 64}) is None
    assert "use_dora" in engine.refuses({"use_dora": True})
    assert "cannot be packed" in engine.refuses({"target_modules": ["embed_tokens"]})
    with pytest.raises(Fault, match="'query' matches nothing") as caught:
        engine.refuses({"target_modules": ["query"]})
    assert caught.value.reason is Reason.CONFIG


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("MixtralForCausalLM", {"num_local_experts": 2}, "auxiliary loss"),
    ],
)
def test_a_base_whose_trials_would_feel_each_other(name: str, change: dict[str, Any], told: str) -> None:
    import torch
    import transformers

    from trainables.packed.bases import check

    kind = getattr(transformers, name)
    small = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    with torch.device("meta"), pytest.raises(Fault, match=told) as caught:
        check(kind(kind.config_class(**small, **change)))
    assert caught.value.reason is Reason.CONFIG


def test_rows_without_a_target(bench: Bench) -> None:
    """Their loss is 0 and their gradient too, as TRL has it."""
    import dataclasses

    import numpy
    import torch

    from trainables.packed.batches import collate

    engine = bench.engine(2)
    rows = engine.rows
    none = dataclasses.replace(rows, labels=numpy.full_like(rows.labels, -100))
    indices = numpy.arange(2)
    whole = collate([(0, indices), (1, indices)], rows, 0, torch.device("cpu"))
    empty = collate([(0, indices), (1, indices)], none, 0, torch.device("cpu"))
    half = int(whole.target_counts[0])
    mixed = dataclasses.replace(
        whole,
        target_counts=torch.tensor([half, 0]),
        target_positions=whole.target_positions[:half],
        target_ids=whole.target_ids[:half],
    )
    for batch in (empty, mixed):
        hidden = torch.randn(1, batch.input_ids.shape[1], 64, requires_grad=True)
        losses = engine.packed.head.losses(hidden, batch)
        losses.sum().backward()
        assert losses[1] == 0.0 and hidden.grad is not None and not hidden.grad[0, batch.segments[1].begin :].any()
        assert bool(losses[0] > 0) == (batch is mixed)


def test_packs_is_torch_free() -> None:
    import subprocess
    import sys

    code = "import sys; from trainables.packed import packs; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({}, None),
        ({"optim": "adamw_torch", "init_lora_weights": "orthogonal", "lora_dropout": 0.1}, None),
        ({"use_dora": True}, "use_dora"),
        ({"optim": "sgd"}, "optim sgd"),
        ({"init_lora_weights": "olora"}, "changes the base"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
    ],
)
def test_packs(train: dict[str, Any], told: str | None) -> None:
    from trainables.packed import packs
    from trainables.settings import Settings

    settings = {"model": {"model_name_or_path": "x"}, "data": {"train": "y"}, "train": train}
    reason = packs(Settings.model_validate(settings))
    assert reason is None if told is None else told in str(reason)
