"""Out of memory while trials are packed: smaller passes from the beginning of the windows give the same losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tests.chaos.faults import Count
from tests.trainables.packed.bench import Bench, Make, assert_same, assignment, drive
from trainables.packed import chunking
from trainables.packed.rows import FlatRows
from tuner.contract import Evaluation, Fault, Reason

ROOT = Path(__file__).resolve().parents[3]
Shown = Callable[[Any], bool]
PARAMS: list[dict[str, Any]] = [
    {"max_steps": 6},
    {"max_steps": 6, "lora_r": 12, "effective_batch_size": 12, "target_modules": "mlp"},
    {"max_steps": 6, "effective_batch_size": 16, "learning_rate": 1e-3},
]
ERROR = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "max_part_tokens", "expected"),
    [
        ([[2, 3], [4]], None, None, [[(0, [0, 1]), (1, [2])]]),
        ([[2, 3], [4]], 9, None, [[(0, [0, 1]), (1, [2])]]),
        ([[2, 3], [4]], 8, None, [[(0, [0, 1])], [(1, [2])]]),
        ([[2, 3], [4]], 4, None, [[(0, [0, 1])], [(1, [2])]]),
        ([[2, 3], [4]], 4, 4, [[(0, [0])], [(0, [1])], [(1, [2])]]),
        ([[1, 1, 1, 1], [1]], 3, 3, [[(0, [0, 1, 2])], [(0, [3]), (1, [4])]]),
        ([[5, 5]], 1, 1, [[(0, [0])], [(0, [1])]]),
    ],
)
def test_parts_in_passes(
    lengths: list[list[int]], max_tokens: int | None, max_part_tokens: int | None, expected: Any
) -> None:
    """Part by part while they fit; within one, row by row; never less than a row."""
    every = [length for own in lengths for length in own]
    starts = numpy.cumsum([0, *every])
    rows = FlatRows(numpy.zeros(starts[-1]), numpy.zeros(starts[-1]), starts)
    numbers = iter(range(len(every)))
    parts = [(slot, numpy.array([next(numbers) for _ in own])) for slot, own in enumerate(lengths)]
    found = [
        [(chunk.part, chunk.rows.tolist()) for chunk in chunks]
        for chunks in chunking.divided(parts, rows, max_tokens, max_part_tokens)
    ]
    assert found == expected


def small(engine: Any, fits: Shown) -> list[int]:
    """Makes the backward of the first layer run out of memory for batches for which `fits` is false: the gradients of
    the layers above are then already there. Gives a list of the tokens of each pass that has a loss."""
    passes, passed = engine.packed, []
    losses = passes.losses

    def full(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError(ERROR)

    def short(_: Any, __: Any, output: torch.Tensor) -> None:
        if output.requires_grad and not fits(shown[0]):
            output.register_hook(full)

    shown: list[Any] = [None]

    def limited(batch: Any, hidden: Any) -> torch.Tensor:
        shown[0] = batch
        if not engine.packed.model.training and not fits(batch):
            raise torch.OutOfMemoryError(ERROR)
        found: torch.Tensor = losses(batch, hidden)
        passed.append(batch.input_ids.numel())
        return found

    passes.losses = limited
    engine.packed.model.model.layers[0].register_forward_hook(short)
    return passed


def rows_of(batch: Any) -> int:
    return sum(len(segment.lengths) for segment in batch.segments)


@pytest.mark.parametrize(
    ("most", "steps_whole", "told"),
    [
        pytest.param(lambda batch: len(batch.segments) <= 2, 0, "a pass has", marks=pytest.mark.slow),
        (lambda batch: len(batch.segments) <= 1, 3, "a pass has"),
        pytest.param(lambda batch: rows_of(batch) <= 3, 0, "a pass has", marks=pytest.mark.slow),
        (lambda batch: rows_of(batch) <= 1, 2, "a pass has"),
    ],
    ids=["two slots", "one slot, later", "a few rows", "one row, later"],
)
def test_trials_that_do_not_fit_go_on_in_smaller_passes_with_the_same_losses(
    bench: Bench, tmp_path: Path, fault: Count, most: Shown, steps_whole: int, told: str
) -> None:
    engine = bench.engine(3)
    for slot, params in enumerate(PARAMS):
        engine.join(slot, assignment(tmp_path / str(slot), params, seed=slot))
    small(engine, lambda batch: engine.trials[0].step < steps_whole or most(batch))
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    for slot, params in enumerate(PARAMS):
        assert_same(curves[slot], bench.solo(params, seed=slot))
    assert str(engine.chunking).startswith(told) and not engine.chunking.recompute
    engine.leave(0)
    engine.join(0, assignment(tmp_path / "next", {"max_steps": 3}, seed=9))
    before = engine.chunking.max_tokens
    drive(engine, {})
    assert engine.chunking.max_tokens == before, "what was found out holds for the next trial"
    fault("out of memory, in packed trials")


def test_fewer_slots_come_before_fewer_rows(bench: Bench, tmp_path: Path) -> None:
    """Dropout's masks are a solo run's as long as no micro-batch is cut."""
    params = [{"max_steps": 6, "lora_dropout": 0.3}, {"max_steps": 6, "lora_dropout": 0.1}]
    engine = bench.engine(2)
    for slot, own in enumerate(params):
        engine.join(slot, assignment(tmp_path / str(slot), own, seed=slot))
    small(engine, lambda batch: len(batch.segments) < 2)
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    for slot, own in enumerate(params):
        assert_same(curves[slot], bench.solo(own, seed=slot))


def test_activations_are_computed_twice_where_not_even_a_row_fits(bench: Bench, tmp_path: Path, fault: Count) -> None:
    """With the masks that were drawn the first time; in the middle of a window as well."""
    engine = bench.engine(2)
    params = [{"max_steps": 6, "lora_dropout": 0.3}, PARAMS[1]]
    for slot, own in enumerate(params):
        engine.join(slot, assignment(tmp_path / str(slot), own, seed=slot))
    layer = engine.packed.model.model.layers[0]
    small(engine, lambda batch: engine.trials[0].step < 2 or layer.gradient_checkpointing or not layer.training)
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    assert engine.chunking.recompute and not layer.gradient_checkpointing
    for slot, own in enumerate(params):
        assert_same(curves[slot], bench.solo(own, seed=slot))
    fault("out of memory, in packed trials")


def test_windows_of_several_micro_batches_begin_again(sft_settings: Make, tmp_path: Path, fault: Count) -> None:
    """Memory ends at a later micro-batch of some windows: what came before it does not count twice."""
    bench = Bench(sft_settings(train={"per_device_train_batch_size": 2, "per_device_eval_batch_size": 5}), tmp_path)
    params = [{"effective_batch_size": 8, "max_steps": 4}, {"effective_batch_size": 6, "max_steps": 4}]
    engine = bench.engine(2)
    for slot, own in enumerate(params):
        engine.join(slot, assignment(tmp_path / str(slot), own, seed=slot))
    seen: list[int] = []

    def fits(batch: Any) -> bool:
        seen.append(1)
        return len(seen) < 7 or rows_of(batch) <= 1

    small(engine, fits)
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    for slot, own in enumerate(params):
        assert_same(curves[slot], bench.solo(own, seed=slot))
    fault("out of memory, in packed trials")


def test_a_row_that_never_fits_ends_its_trial_alone(bench: Bench, tmp_path: Path, fault: Count) -> None:
    engine = bench.engine(2)
    for slot in range(2):
        engine.join(slot, assignment(tmp_path / str(slot), {"max_steps": 4}, seed=slot))
    small(engine, lambda batch: engine.trials[1].failed or all(segment.slot != 1 for segment in batch.segments))
    curves: dict[int, list[Evaluation]] = {}
    faults = drive(engine, curves)
    assert list(faults) == [1] and faults[1].reason is Reason.OUT_OF_MEMORY
    assert "at a single row of" in faults[1].message and faults[1].device == "cpu"
    assert_same(curves[0], bench.solo({"max_steps": 4}, seed=0))
    fault("out of memory, in packed trials")


def test_an_evaluation_goes_in_smaller_passes_too(bench: Bench, tmp_path: Path, fault: Count) -> None:
    """Rows are independent, so its batches may be cut: the loss is the mean of the batches' means all the same."""
    engine = bench.engine(2)
    for slot in range(2):
        engine.join(slot, assignment(tmp_path / str(slot), {"max_steps": 4}, seed=slot))
    small(engine, lambda batch: engine.packed.model.training or rows_of(batch) <= 2)
    curves: dict[int, list[Evaluation]] = {}
    assert drive(engine, curves) == {}
    for slot in range(2):
        assert_same(curves[slot], bench.solo({"max_steps": 4}, seed=slot))
    engine = bench.engine(1)
    engine.join(0, assignment(tmp_path / "never", {"max_steps": 4}, seed=0))
    small(engine, lambda batch: engine.packed.model.training)
    with pytest.raises(Fault, match="at an evaluation: out of memory at a single row"):
        drive(engine, {})
    fault("out of memory, in packed trials")


_LIMITED = """
import json, resource, sys
from pathlib import Path
from tests.trainables.packed.bench import Bench, assignment, drive

settings, folder, limited = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "limited"
bench = Bench(settings, folder)
engine = bench.engine(3)
for slot in range(3):
    engine.join(slot, assignment(folder / str(slot), {}, seed=slot))
if limited:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 100 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
curves = {}
faults = drive(engine, curves)
print(json.dumps({
    "losses": {slot: [e.eval_loss for e in curve] for slot, curve in curves.items()},
    "faults": [str(fault) for fault in faults.values()], "tokens": engine.chunking.max_tokens,
}))
"""


@pytest.mark.chaos
def test_memory_that_really_ends(sft_settings: Make, tmp_path: Path, fault: Count) -> None:
    """An engine under a limit of its address space that three slots of 32 rows a pass do not keep to, and fewer do."""
    rows = [{"text": "the cat sat on a mat and the dog ran to a red house " * 12} for _ in range(128)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"max_steps": 2, "effective_batch_size": 32, "per_device_train_batch_size": 32}
    settings = sft_settings(
        data={"train": str(data), "max_length": 256}, train={**train, "per_device_eval_batch_size": 2}
    )
    answers = {}
    for kind in ("free", "limited"):
        (tmp_path / kind).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _LIMITED, json.dumps(settings), str(tmp_path / kind), kind],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        answers[kind] = json.loads(done.stdout.splitlines()[-1])
    assert answers["free"]["tokens"] is None and answers["limited"]["tokens"] is not None
    assert not answers["limited"]["faults"]
    for slot, losses in answers["free"]["losses"].items():
        assert answers["limited"]["losses"][slot] == pytest.approx(losses, abs=1e-5)
    fault("out of memory, in packed trials")
