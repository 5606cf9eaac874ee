"""Packed trials on a GPU with too little memory for them, and the cost of the probe there. Run by hand:

pytest -m gpu tests/gpu/test_memory.py -s"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.packed.architectures import GOOD, LEAKY, build
from tests.trainables.packed.bench import Bench, Make, assert_same, assignment, drive
from trainables.packed import engine as packed
from trainables.packed import probe
from tuner.contract import Evaluation

ROOT = Path(__file__).resolve().parents[2]
TRIAL: dict[str, Any] = {"max_steps": 4, "effective_batch_size": 24}
SMALL: dict[str, Any] = {**TRIAL, "effective_batch_size": 8}
"""Three of these fit into 80 GB: they have 23,000 tokens, and a pass of 35,000 tokens still fits."""

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.5 billion random parameters, and rows of about 900 tokens."""
    folder = tmp_path_factory.mktemp("large") / "base"
    code = (
        "from pathlib import Path; from make_base import make_base, make_rows; "
        f"make_base('0.5b', Path({str(folder)!r})); make_rows(Path({str(folder)!r}), 200, 900)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True)
    return folder


@pytest.fixture
def bench(sft_settings: Make, base: Path, tmp_path: Path) -> Bench:
    train = {"per_device_train_batch_size": 24, "per_device_eval_batch_size": 16, "learning_rate": 3e-4}
    data = {"train": str(base / "train.jsonl"), "max_length": 1024, "validation_fraction": 0.1,
            "max_validation_rows": 16}  # fmt: skip
    return Bench(sft_settings(model={"model_name_or_path": str(base)}, data=data, train=train), tmp_path)


@pytest.fixture(autouse=True)
def _whole_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("share", [0.5, 0.15], ids=["fewer slots", "fewer rows"])
def test_trials_that_do_not_fit_go_on_in_smaller_passes(bench: Bench, tmp_path: Path, share: float) -> None:
    """Losses as with all of the GPU, to bf16's rounding; share: of the memory that three slots take."""
    found, peak = [], 0
    for name in ("whole", "limited"):
        engine = bench.engine(3)
        for slot in range(3):
            engine.join(slot, assignment(tmp_path / name / str(slot), SMALL, seed=slot))
        if name == "limited":
            resident = torch.cuda.memory_allocated()
            limit = resident + share * (peak - resident)
            torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
        torch.cuda.reset_peak_memory_stats()
        curves: dict[int, list[Evaluation]] = {}
        assert drive(engine, curves) == {}
        peak = torch.cuda.max_memory_allocated()
        print(f"{name}: {engine.chunking}, peak {peak / 2**30:.1f} GiB")
        found.append((curves, engine.chunking.shrunk))
        del engine
        torch.cuda.empty_cache()
    (whole, free), (limited, shrunk) = found
    assert shrunk and not free
    for slot in range(3):
        assert_same(limited[slot], whole[slot], 2e-2)


def test_not_even_one_trial_fits_whole(bench: Bench, tmp_path: Path) -> None:
    """As in a search: the number of trials is chosen, and they go on all the same."""
    engine = bench.engine(6)
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_allocated() + 8 * 2**30) / torch.cuda.get_device_properties(0).total_memory
    )
    choice = engine.choose(6, {"effective_batch_size": 24}, measure=False)
    assert choice.slots == 1
    for number in range(2):
        engine.join(0, assignment(tmp_path / str(number), TRIAL, seed=number))
        curves: dict[int, list[Evaluation]] = {}
        assert drive(engine, curves) == {}
        assert curves[0][-1].done
        print(f"trial {number}: {engine.chunking}")
        engine.leave(0)


@pytest.mark.parametrize("kind", ["none", "nf4"])
def test_a_sound_base_stands_and_the_probe_says_its_time(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """In bf16 and in 4 bit."""
    spent: list[float] = []
    for name in ("SoloReference", "require_independent"):
        call = getattr(probe, name)

        def timed(*given: Any, call: Any = call, **more: Any) -> Any:
            torch.cuda.synchronize()
            began = time.perf_counter()
            try:
                return call(*given, **more)
            finally:
                torch.cuda.synchronize()
                spent.append(time.perf_counter() - began)

        monkeypatch.setattr(packed.probe, name, timed)
    bench.settings["model"]["quantization"] = kind
    bench.engine(2)
    print(f"{kind}: {' + '.join(f'{seconds:.2f}' for seconds in spent)} s")
    assert len(spent) == 2


@pytest.mark.parametrize("name", ["lfm2", "granite hybrid", "llama", "mistral"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_verdicts_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    from tests.trainables.packed.test_probe import verdict

    model = build(*{**GOOD, **LEAKY}[name]).to("cuda", dtype)
    found = verdict(model)
    print(f"{name}, {dtype}: {found}")
    assert (found is None) == (name in GOOD)
