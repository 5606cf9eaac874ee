"""A QLoRA search over a base of 1.5 billion parameters on a real GPU. Run by hand: pytest -m gpu tests/gpu -s"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tuner.contract import Reason
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_qlora_search_over_a_large_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    code = (
        "from pathlib import Path; from make_base import make_base, make_rows; "
        f"make_base('1.5b', Path({str(base)!r})); make_rows(Path({str(base)!r}), 1000, 200)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "tuner", "search", "--space", "qlora", "--num-trials", "8", "--json",
            "--model", str(base), "--data", str(base / "train.jsonl"), "--validation", str(base / "validation.jsonl"),
            # 141 GB hold 64 rows at once: nothing is accumulated, and the GPU limits a step, not the kernel launches
            "--set", "train.per_device_train_batch_size=64", "--set", "train.per_device_eval_batch_size=16",
            "--set", "train.max_steps=12", "--set", "train.eval_steps=0.5",
            "--set", "data.max_validation_rows=16", "--name", "gpu", "--storage-path", str(tmp_path),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    record = SearchRecord.fold(read_ledger(tmp_path / "gpu" / "trials.jsonl"))
    trials = list(record.trials.values())
    assert len(record.ended) == 8
    name = torch.cuda.get_device_name()
    assert {t.setup["device"] for t in trials} == {name}, "every trial ran on the GPU"
    assert {t.setup["quantization"] for t in trials} == {"nf4"}
    assert any(t.reason is Reason.RUNG for t in trials)
    before = [t.setup["memory_before"] for t in trials]
    assert max(before) - min(before) <= 2**20, f"memory was left behind between trials: {before}"
    for trial in sorted(trials, key=lambda t: t.number):
        last = trial.points[-1]
        print(
            f"{trial.number:>3} {trial.ending:<45} {last.seconds:7.2f} s  step {last.step:>3}  "
            f"before {trial.setup['memory_before'] / 2**20:8.1f} MiB  peak {(last.memory or 0) / 2**20:9.1f} MiB  "
            f"{trial.setup['trainable_parameters']:,} parameters"
        )
    print(f"wall {answer['wall_s']:.1f} s, {answer['wall_s'] / 8:.1f} s a trial; best {answer['best']}")
