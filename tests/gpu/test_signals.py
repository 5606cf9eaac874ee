"""SIGTERM to the process group of a search with 16 packed trials on a real GPU, as `timeout` and Slurm send it.

Run by hand: pytest -m gpu tests/gpu/test_signals.py -s
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tuner.results.ledger import Kind, read_ledger
from tuner.results.records import SearchRecord

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 16
WITHIN_S = 10.0

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def used() -> int:
    """MiB of the first GPU's memory that are in use, by any process."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0])


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", "search", *arguments, "--storage-path", str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip


def test_a_sigterm_to_the_group_of_16_packed_trials(tmp_path: Path) -> None:
    base, ledger = tmp_path / "base", tmp_path / "run" / "trials.jsonl"
    code = (
        "from pathlib import Path; from make_base import make_base, make_rows; "
        f"make_base('0.5b', Path({str(base)!r})); make_rows(Path({str(base)!r}), 500, 32)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True)
    before = used()
    search = start(
        tmp_path, "--model", str(base), "--data", str(base / "train.jsonl"),
        "--validation", str(base / "validation.jsonl"), "--num-trials", str(TRIALS), "--name", "run",
        "--trials-per-gpu", str(TRIALS), "--scheduler", "none", "--sampler", "random",
        "--set", "train.max_steps=120", "--set", "train.eval_steps=0.1", "--set", "run.trackers=[]",
    )  # fmt: skip
    deadline = time.monotonic() + 180
    while True:
        events = list(read_ledger(ledger)) if ledger.exists() else []
        measured = {e.number for e in events if e.event is Kind.EVALUATION}
        if len(measured) == TRIALS:
            break
        assert search.poll() is None, search.communicate()[1]
        assert time.monotonic() < deadline, "the search did not get going"
        time.sleep(0.1)
    family = psutil.Process(search.pid).children(recursive=True)
    began = time.monotonic()
    os.killpg(search.pid, signal.SIGTERM)
    _, errors = search.communicate(timeout=60)
    took = time.monotonic() - began
    print(f"SIGTERM to the group: exit code {search.returncode} after {took:.1f} s\n{errors}")
    assert search.returncode == 128 + signal.SIGTERM, errors
    assert "search --resume run" in errors and "Traceback" not in errors, errors
    assert took < WITHIN_S
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, [p.cmdline() for p in alive]
    assert used() <= before + 64, "nothing is left on the GPU"
    cut = SearchRecord.fold(read_ledger(ledger))
    assert cut.outcome == "interrupted" and not cut.running
    assert len([t for t in cut.trials.values() if t.interrupted]) == TRIALS - len(cut.ended)

    resumed = start(tmp_path, "--resume", "run")
    _, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors
    record = SearchRecord.fold(read_ledger(ledger))
    assert len(record.ended) == TRIALS and record.best is not None
    # The steps of evaluations: each trial has its complete curve once, and continued from a state if it had one
    assert all(len(t.points) == 10 for t in record.trials.values())
