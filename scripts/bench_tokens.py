"""Measures tokens a second and memory of packed trials, over tokens a step, slots, bases and precisions.

    python scripts/bench_tokens.py --shapes 0.5b,1.5b,7b --quantizations none,nf4 --json
    python scripts/bench_tokens.py --shapes tiny --slots 1,4 --tokens 256 --json      # on a CPU, in seconds

Every cell is the packed engine itself with rank-16 adapters on all linear layers, over a base of Qwen2's shape with
random weights, for a number of slots and of tokens in a step of each. One slot is the reference of its row: it is what
a trial alone does in the same engine.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

ROW = 256
"""Tokens of a row; a step of 8k tokens has 32 of them."""


def prepare(base: Path, length: int, rows: int = 512) -> Any:
    """Prepares rows of exactly `length` random tokens, as a search does."""
    import random
    from array import array

    from trainables.data import store
    from trainables.data.tokens import Tokens
    from tuner.contract import Preparation

    draw = random.Random(0)
    folder = base / f"rows-{length}"
    sets = {}
    for name, count in (("train", rows), ("validation", 64)):
        ids = array("i", (draw.randrange(10, 2000) for _ in range(count * length)))
        ends = array("q", range(length, count * length + 1, length))
        sets[name] = Tokens(ids, array("i", ids), ends)
    made = Preparation(str(folder), rows * length, {"max_token_id": 2047})
    store.save(folder, sets, made)
    return made


def settings(base: Path, quantization: str, dtype: str, rows: int) -> dict[str, Any]:
    """Settings of the SFT program. rows: of a step."""
    return {
        "model": {"model_name_or_path": str(base), "quantization": quantization, "dtype": dtype},
        "data": {"train": "none"},
        "train": {"max_steps": 1000, "effective_batch_size": rows, "per_device_train_batch_size": rows,
                  "lora_r": 16, "warmup_ratio": 0.0},
    }  # fmt: skip


def measure(
    engine: Any, slots: int, scratch: Path, rows: int, steps: int, repeats: int, estimate: int
) -> dict[str, Any]:
    """Lets `slots` trials join, warms up, times `steps` steps `repeats` times, and lets the trials leave.

    rows: of a step of each. estimate: bytes that `trainables.models.memory` expects at the peak.
    """
    import torch

    from tuner.contract import Assignment

    gpu = torch.cuda.is_available()
    fit = engine.choose(slots, {"effective_batch_size": rows}, measure=False).fit  # buffers for so many and no more
    if fit < slots:
        raise MemoryError(f"{fit} fit")
    began = time.perf_counter()
    for slot in range(slots):
        place = scratch / f"trial-{slot}"
        place.mkdir(exist_ok=True)
        params = {"effective_batch_size": rows}
        engine.join(slot, Assignment(slot, params, slot, (1.0,), str(place)))
    joined = time.perf_counter() - began

    def run(count: int) -> float:
        if gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        engine.advance(limit=count)
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    if gpu:
        torch.cuda.reset_peak_memory_stats()
    first = run(1)
    run(4)  # the second step is captured, and the next ones are not yet as fast as later ones
    times = [run(steps) / steps for _ in range(repeats)]
    tokens = slots * rows * ROW
    found = {
        "slots": slots,
        "tokens_a_step": rows * ROW,
        "join_s": round(joined / slots, 3),
        "first_s": round(first, 3),
        "step_s": [round(t, 4) for t in times],
        "tokens_a_second": round(tokens / statistics.median(times)),
        "peak_bytes": torch.cuda.max_memory_allocated() if gpu else None,
    }
    if gpu:
        found["estimate_bytes"] = estimate
        found["estimate_misses_by"] = f"{estimate / found['peak_bytes'] - 1:+.0%}"
    for slot in range(slots):
        engine.leave(slot)
    return found


def profile(engine: Any, slots: int, scratch: Path, rows: int) -> None:
    """Prints the time of a step by kernel and by call."""
    import torch
    from torch.profiler import ProfilerActivity

    from tuner.contract import Assignment

    for slot in range(slots):
        place = scratch / f"trial-{slot}"
        place.mkdir(exist_ok=True)
        engine.join(slot, Assignment(slot, {"effective_batch_size": rows}, slot, (1.0,), str(place)))
    engine.advance(limit=3)
    gpu = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with torch.profiler.profile(activities=kinds) as found:
        engine.advance(limit=3)
        if gpu:
            torch.cuda.synchronize()
    for key in ("self_cuda_time_total", "self_cpu_time_total") if gpu else ("self_cpu_time_total",):
        print(found.key_averages().table(sort_by=key, row_limit=28, max_name_column_width=70), file=sys.stderr)
    for slot in range(slots):
        engine.leave(slot)


def sweep(arguments: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Measures every cell; one that does not fit into memory has an `error`."""
    import torch
    from make_base import make_base

    from trainables.models.memory import need, shape_of
    from trainables.packed import load

    cells = []
    counts = [int(n) for n in arguments.slots.split(",")]
    for shape in arguments.shapes.split(","):
        base = scratch / shape
        parameters = make_base(shape, base)
        preparation = prepare(base, ROW)
        config = json.loads((base / "config.json").read_text())
        for quantization in arguments.quantizations.split(","):
            began = time.perf_counter()
            dtype = arguments.dtype
            rows = max(1, int(arguments.tokens.split(",")[-1]) // ROW)
            found = settings(base, quantization, dtype, rows)
            engine = load(found, preparation, max(counts), capture=not arguments.no_graphs)
            loaded = time.perf_counter() - began
            print(f"{shape} {quantization}: {parameters:,} parameters, loaded in {loaded:.1f} s", file=sys.stderr)
            for tokens in [int(n) for n in arguments.tokens.split(",")]:
                rows = max(1, tokens // ROW)
                for slots in counts:
                    cell = {"shape": shape, "quantization": quantization, "parameters": parameters}
                    try:
                        estimate = need(
                            shape_of(config), slots=slots, tokens=rows * ROW, rank=16, bf16=dtype != "float32",
                            nf4=quantization == "nf4", packed=True,
                        ).total  # fmt: skip
                        if torch.cuda.is_available() and estimate > torch.cuda.mem_get_info()[1]:
                            raise MemoryError(f"would need {estimate / 2**30:.0f} GiB")
                        cell |= measure(engine, slots, scratch, rows, arguments.steps, arguments.repeats, estimate)
                    except Exception as error:  # out of memory is an answer
                        cell |= {"slots": slots, "tokens_a_step": rows * ROW, "error": str(error)[:200]}
                        engine.choose(1, {}, measure=False)  # empties all slots
                        gc.collect()
                        if torch.cuda.is_available():
                            torch.cuda.empty_cache()
                    cells.append(cell)
                    print(json.dumps(cell), file=sys.stderr, flush=True)
                if arguments.profile:
                    profile(engine, max(counts), scratch, rows)
            del engine
            gc.unfreeze()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="0.5b,1.5b,7b")
    parser.add_argument("--quantizations", default="none,nf4")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", default="256,1024,4096,8192", help="tokens in a step of each slot")
    parser.add_argument("--slots", default="1,4,8,16")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-graphs", action="store_true", help="every kernel launched, as beside an unpacked trial")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        cells = sweep(arguments, Path(scratch))
    from tuner.results.versions import versions

    for cell in cells:
        speed = f"{cell['tokens_a_second']:>9,} tokens/s" if "error" not in cell else cell["error"]
        peak = f"{(cell.get('peak_bytes') or 0) / 2**30:7.1f} GiB"
        name = f"{cell['shape']:<5} {cell['quantization']:<5} {cell['tokens_a_step']:>5} x {cell['slots']:<3}"
        print(f"{name} {speed} {peak} {cell.get('estimate_misses_by', '')}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"versions": versions(), "date": time.strftime("%Y-%m-%d"), "cells": cells}))


if __name__ == "__main__":
    main()
