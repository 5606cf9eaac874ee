"""Measures tokens a second and losses of a trial in one process and in a process group, with ddp and with fsdp.

    python scripts/bench_process_groups.py --shape 7b --tokens 8192 --processes 2 --json
    python scripts/bench_process_groups.py --device cpu --json      # a tiny base, two processes and gloo, in a minute

Every trial is the SFT program itself: SFTTrainer with a rank-16 adapter on all linear layers, over a base of Qwen2's
shape with random weights, in bf16 on GPUs, a GPU for each process. The batch of a step is the same however many
processes share it. One process, ddp and fsdp take turns in several rounds; the first round warms up and does not count.
The processes are started as Ray Train starts them, but without Ray, which does nothing between two evaluations.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
import traceback
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

ROW = 256
"""Tokens of a row; a step of 8k tokens has 32 of them."""


class Processes:
    """A process group that trains one trial at a time, each process on a GPU of its own if there are any."""

    def __init__(self, size: int, job: dict[str, Any]) -> None:
        """Starts the processes. job: what all trials have in common; see `compare`."""
        context = get_context("spawn")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._orders = [context.Queue() for _ in range(size)]
        self._said: Any = context.Queue()
        self._all = [
            context.Process(target=_serve, args=(rank, size, port, job, orders, self._said), daemon=True)
            for rank, orders in enumerate(self._orders)
        ]
        for process in self._all:
            process.start()

    def run(self, strategy: str, number: int) -> dict[str, Any]:
        """Runs trial `number`; gives what the first process measured, with the largest peak in bytes of all
        processes."""
        for orders in self._orders:
            orders.put((strategy, number))
        found = [self._said.get() for _ in self._all]
        for one in found:
            if "error" in one:
                raise SystemExit(one["error"])
        peaks = [one["peak_bytes"] for one in found if one["peak_bytes"] is not None]
        return {**min(found, key=lambda one: one["rank"]), "peak_bytes": max(peaks, default=None)}

    def end(self) -> None:
        """Ends the processes, by force after 30 s each."""
        for orders in self._orders:
            orders.put(None)
        for process in self._all:
            process.join(30)
            process.kill()


def _serve(rank: int, size: int, port: int, job: dict[str, Any], orders: Any, said: Any) -> None:
    """One process: joins the group, runs the trials that `orders` has, and puts the results into `said`."""
    os.environ["OMP_NUM_THREADS"] = str(job["threads"])
    if size > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        }  # fmt: skip
    elif job["gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    try:
        import torch
        from torch import distributed

        from trainables.hf.solo_trial import release_memory

        torch.set_num_threads(job["threads"])
        if job["gpu"]:
            torch.cuda.set_device(rank)
        if size > 1:
            distributed.init_process_group("nccl" if job["gpu"] else "gloo", rank=rank, world_size=size)
        while (order := orders.get()) is not None:
            found = _trial(*order, rank, size, job)
            # The next turn is another arrangement's, on the same GPU: two 7B bases and a step of 8k tokens take more
            # than 80 GB
            release_memory()
            said.put({"rank": rank, **found})
    except BaseException:
        said.put({"error": f"process {rank} of {size}: {traceback.format_exc()}"})


def _trial(strategy: str, number: int, rank: int, size: int, job: dict[str, Any]) -> dict[str, Any]:
    """Runs one trial to its end; gives seconds and tokens a second of a step, its losses, and its peak in bytes."""
    import torch
    from transformers import TrainerCallback

    from trainables.sft import SFT
    from tuner.contract import Assignment, Group

    class Watch(TrainerCallback):
        """Takes the seconds of every step."""

        def __init__(self) -> None:
            self.began, self.steps = 0.0, list[float]()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if job["gpu"]:
                torch.cuda.synchronize()
            self.steps.append(time.perf_counter() - self.began)

    program = SFT(job["settings"], job["preparation"], Group(rank, size, strategy))
    folder = Path(job["scratch"], f"{strategy}-{size}-{number}")
    folder.mkdir(exist_ok=True)
    began = time.perf_counter()
    program.start(Assignment(number, {}, 7, (0.25, 0.5, 0.75, 1.0), str(folder)))
    started = time.perf_counter() - began
    watch, curve = Watch(), []
    program.trial.trainer.add_callback(watch)
    while not curve or not curve[-1].done:
        curve.append(program.step())
    program.stop()
    step = statistics.median(watch.steps[2:])
    return {
        "start_s": started,
        "tokens_a_second": job["tokens_a_step"] / step,
        "step_s": step,
        "eval_loss": [evaluation.eval_loss for evaluation in curve],
        "train_loss": [evaluation.train_loss for evaluation in curve],
        "peak_bytes": curve[-1].memory,
    }


def compare(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measures every arrangement in turn, round after round."""
    import torch
    from bench_tokens import prepare, settings
    from make_base import make_base

    gpu = arguments.device != "cpu"
    if gpu and torch.cuda.device_count() < arguments.processes:
        raise SystemExit(f"{arguments.processes} GPUs are asked for, {torch.cuda.device_count()} are there")
    parameters = make_base(arguments.shape, scratch / "base")
    rows = max(arguments.processes, arguments.tokens // ROW)
    made = settings(scratch / "base", arguments.quantization, "bfloat16" if gpu else "float32", rows)
    made["train"] |= {"max_steps": arguments.steps, "per_device_eval_batch_size": 4}
    job = {
        "settings": made,
        "preparation": prepare(scratch / "base", ROW),
        "scratch": str(scratch),
        "gpu": gpu,
        "tokens_a_step": rows * ROW,
        "threads": max(1, (os.cpu_count() or 1) // arguments.processes),
    }
    sizes = {"one": 1, "ddp": arguments.processes, "fsdp": arguments.processes}
    # Each in processes of its own, as in a search: transformers sets environment variables for fsdp that stay, and a
    # ddp trial in the same process then took 3.5 times as long
    arrangements = {name: Processes(size, job) for name, size in sizes.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arrangements}
    try:
        for number in range(arguments.rounds + 1):
            for name, processes in arrangements.items():
                cell = processes.run("fsdp" if name == "fsdp" else "ddp", number)
                print(
                    f"round {number} {name:<5} {cell['tokens_a_second']:>9,.0f} tokens/s", file=sys.stderr, flush=True
                )
                if number:
                    found[name].append(cell)
    finally:
        for processes in arrangements.values():
            processes.end()
    return {
        "shape": arguments.shape,
        "parameters": parameters,
        "quantization": arguments.quantization,
        "tokens_a_step": rows * ROW,
        "processes": arguments.processes,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "arrangements": {name: _summary(cells, found["one"]) for name, cells in found.items()},
    }


def _summary(cells: list[dict[str, Any]], one: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and the speed of each round. `differs` is the largest difference of a validation loss to that of one
    process; `noise` is the largest between rounds of one process. one: the rounds of one process."""
    speeds = [cell["tokens_a_second"] for cell in cells]
    peak = max((cell["peak_bytes"] or 0 for cell in cells), default=0)
    return {
        "tokens_a_second": round(statistics.median(speeds)),
        "times_one": round(statistics.median(speeds) / statistics.median(c["tokens_a_second"] for c in one), 2),
        "rounds": [round(speed) for speed in speeds],
        "step_s": round(statistics.median(cell["step_s"] for cell in cells), 4),
        "start_s": round(statistics.median(cell["start_s"] for cell in cells), 2),
        "peak_bytes": peak or None,
        "eval_loss": cells[-1]["eval_loss"],
        "train_loss": cells[-1]["train_loss"],
        "differs": max(_apart(cell, one[0]) for cell in cells),
        "noise": max(_apart(first, second) for first in one for second in one),
    }


def _apart(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The largest difference between the validation losses of two trials."""
    return max(abs(a - b) for a, b in zip(first["eval_loss"], second["eval_loss"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", help="[default: 7b; tiny on a CPU]")
    parser.add_argument("--quantization", choices=("none", "nf4"), default="none")
    parser.add_argument("--tokens", type=int, help="tokens a step, of all processes  [default: 8192; 2048 on a CPU]")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=24, help="of a trial")
    parser.add_argument("--rounds", type=int, default=3, help="that count, after one that warms up")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.shape = arguments.shape or ("7b" if arguments.device == "cuda" else "tiny")
    arguments.tokens = arguments.tokens or (8192 if arguments.device == "cuda" else 2048)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        found = compare(arguments, Path(scratch))
    from tuner.results.versions import versions

    for name, cell in found["arrangements"].items():
        peak = f"{(cell['peak_bytes'] or 0) / 2**30:6.1f} GiB"
        print(
            f"{name:<5} {cell['tokens_a_second']:>9,} tokens/s  {cell['times_one']:.2f} times one  {peak} a GPU  "
            f"last loss {cell['eval_loss'][-1]:.5f}, differs by {cell['differs']:.1e} (noise {cell['noise']:.1e})",
            file=sys.stderr,
        )
    if arguments.json:
        print(json.dumps({"versions": versions(), "date": time.strftime("%Y-%m-%d"), **found}))


if __name__ == "__main__":
    main()
