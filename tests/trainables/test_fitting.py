"""After out of memory a trial continues from its last state with half the micro-batch, then with checkpointing, and has
the same losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import Count
from trainables import fitting, runtime
from trainables.sft import SFT
from tuner.contract import Assignment, Evaluation, Fault, Fit, Reason, Resume

pytestmark = pytest.mark.usefixtures("one_thread", "every_evaluation")

Make = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("effective", "cap", "checkpointing", "expected"),
    [
        (16, 8, False, Fit(4)),
        (12, 4, False, Fit(2)),
        (9, 9, False, Fit(3)),
        (7, 7, False, Fit(1)),
        (16, 1, False, Fit(1, True)),
        (16, 8, True, Fit(4, True)),
        (16, 1, True, None),
    ],
)
def test_what_is_smaller(sft_settings: Make, effective: int, cap: int, checkpointing: bool, expected: Any) -> None:
    train = {
        "effective_batch_size": effective,
        "per_device_train_batch_size": cap,
        "gradient_checkpointing": checkpointing,
    }
    settings = runtime.validated(sft_settings(train=train))
    assert fitting.smaller(settings) == expected
    if expected is not None:
        assert fitting.smaller(fitting.fitted(settings, expected)) != expected


class Small(SFT):
    """SFT on a device that from step `full_at` on has memory for at most `rows` rows a pass without checkpointing.

    at_evaluation: evaluations run out of memory.
    """

    rows, full_at, at_evaluation = 8, 0, False

    def start(self, assignment: Assignment) -> Any:
        import torch

        made = super().start(assignment)
        assert self.trial is not None
        trainer, step = self.trial.trainer, self.trial.trainer.training_step
        loop = trainer.prediction_step

        def limited(model: Any, inputs: Any, *more: Any) -> Any:
            late = trainer.state.global_step >= self.full_at
            if late and len(inputs["input_ids"]) > self.rows and not trainer.args.gradient_checkpointing:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return step(model, inputs, *more)

        def measured(*arguments: Any, **more: Any) -> Any:
            if self.at_evaluation:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return loop(*arguments, **more)

        trainer.training_step, trainer.prediction_step = limited, measured
        return made


def driven(program: SFT, folder: Path) -> tuple[list[Evaluation], list[str], int]:
    """Tries again with what the fault says, as the driver does. Gives the curve, the arrangements in words, and the
    step from which the last attempt continued."""
    task = Assignment(0, {}, 7, (0.25, 0.5, 0.75, 1.0), str(folder / "1"))
    curve: list[Evaluation] = []
    told: list[str] = []
    for attempt in range(1, 9):
        Path(folder, str(attempt)).mkdir()
        best = min((e.eval_loss for e in curve if e.eval_loss is not None), default=None)
        places = tuple(str(folder / str(n)) for n in range(attempt - 1, 0, -1))
        resume = Resume(curve[-1].step if curve else 0, best, places) if attempt > 1 else None
        task = replace(task, folder=str(folder / str(attempt)), attempt=attempt, resume=resume)
        try:
            setup = program.start(task)
            if not setup.resumed_step:
                curve = []
            while not curve or not curve[-1].done:
                curve.append(program.step())
            program.stop()
            return curve, told, setup.resumed_step
        except Fault as fault:
            program.stop()
            if fault.reason is not Reason.OUT_OF_MEMORY or fault.fit is None:
                raise
            told.append(str(fault.fit))
            task = replace(task, fits={fault.device: fault.fit})
    raise AssertionError("it never fitted")


def small(sft_settings: Make, cache: Path, **device: Any) -> Small:
    settings = sft_settings(train={"lora_dropout": 0.0, "effective_batch_size": 8})
    program = Small(settings, SFT.prepare(settings, cache))
    for name, value in device.items():
        setattr(program, name, value)
    return program


@pytest.mark.parametrize(
    ("rows", "full_at", "told", "resumed"),
    [
        (2, 0, ["micro-batch 4", "micro-batch 2"], 0),
        (4, 5, ["micro-batch 4"], 4),
        (0, 3, ["micro-batch 4", "micro-batch 2", "micro-batch 1", "micro-batch 1, gradient checkpointing"], 2),
    ],
)
def test_a_trial_that_does_not_fit_goes_on_smaller_with_the_same_losses(
    sft_settings: Make,
    cache: Path,
    tmp_path: Path,
    fault: Count,
    rows: int,
    full_at: int,
    told: list[str],
    resumed: int,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected, nothing, _ = driven(small(sft_settings, cache), tmp_path / "a")
    curve, arrangements, step = driven(small(sft_settings, cache, rows=rows, full_at=full_at), tmp_path / "b")
    assert not nothing and arrangements == told and step == resumed
    assert [e.step for e in curve] == [e.step for e in expected]
    for mine, theirs in zip(curve, expected, strict=True):
        assert mine.eval_loss == pytest.approx(theirs.eval_loss, abs=1e-5)
        assert mine.tokens == theirs.tokens
    fault("out of memory, in a real trial", len(told))


def test_an_evaluation_that_does_not_fit_is_not_answered_by_a_smaller_micro_batch(
    sft_settings: Make, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(Fault, match="at an evaluation") as caught:
        driven(small(sft_settings, cache, at_evaluation=True), tmp_path)
    assert caught.value.fit is None and "per_device_eval_batch_size" in caught.value.remedy


_LIMITED = """
import json, resource, sys
from pathlib import Path
from tests.trainables import test_fitting
from trainables.sft import SFT

settings, cache, folder = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
program = SFT(settings, SFT.prepare(settings, cache))
class Limited:
    def __getattr__(self, name): return getattr(program, name)
    def start(self, task):
        setup = program.start(task)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 60 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        return setup
    def stop(self):
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        program.stop()
curve, told, _ = test_fitting.driven(Limited(), folder)
print(json.dumps({"losses": [e.eval_loss for e in curve], "told": told}))
"""


@pytest.mark.chaos
def test_memory_that_really_ends(sft_settings: Make, tmp_path: Path, fault: Count) -> None:
    """The real program under a limit of its address space that 64 rows a pass do not keep to, and fewer do."""
    rows = [{"text": "the cat sat on a mat and the dog ran to a red house " * 12} for _ in range(128)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"max_steps": 2, "effective_batch_size": 64, "per_device_train_batch_size": 64}
    settings = sft_settings(
        data={"train": str(data), "max_length": 256}, train={**train, "per_device_eval_batch_size": 2}
    )
    (tmp_path / "trials").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, json.dumps(settings), str(tmp_path / "cache"), str(tmp_path / "trials")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["told"] and answer["told"][0] == "micro-batch 32"
    fault("out of memory, in a real trial", len(answer["told"]))
