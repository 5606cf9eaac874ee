"""Measures how long the same trials take in the naive way and with tuner, on one machine, in turns.

    python scripts/bench_makespan.py --device cpu --json
    python scripts/bench_makespan.py --shape 1.5b --quantization nf4 --batch 2 --steps 60 --ways naive:3,packed-16

By default the trials are those of the embedded default: 16 of 100 steps of 4 rows, ten evaluations of 128 rows.

A way may run fewer trials than the others ("naive:3"): naive trials run one after another and take equally long, so
the time of three tells that of sixteen. A way's time is that of its complete command, from the shell to the last line,
Ray's start included; with fewer trials that start is spread over as many as the others run.

The peer ("naive") is naive_search.py; "naive-reuse" keeps its processes (`reuse_actors=True`). Nothing is stopped
early, so every way does the same work; the final losses are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SPACE = {
    "parameters": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-3, "log": True},
        "lora_r": {"type": "choice", "values": [8, 16, 32]},
    }
}


def experiment(job: dict[str, Any], storage: Path) -> dict[str, Any]:
    """The experiment as tuner reads it. Without scheduler and rules: every trial runs all its steps."""
    return {
        "model": {"model_name_or_path": job["base"], "dtype": job["dtype"], "quantization": job["quantization"]},
        "data": {
            "train": job["train"],
            "validation": job["validation"],
            "max_length": job["max_length"],
            "max_validation_rows": job["validation_rows"],
        },
        "train": {
            "max_steps": job["steps"],
            "effective_batch_size": job["batch"],
            "per_device_train_batch_size": job["batch"],
            "per_device_eval_batch_size": 8,
            "warmup_ratio": 0.05,
            "eval_steps": job["eval_steps"],
        },
        "search": {"space": SPACE, "num_trials": job["trials"], "sampler": "random", "seed": 0},
        "scheduler": {"kind": "none"},
        "resources": {"max_concurrent_trials": job["workers"]},
        "run": {"storage_path": str(storage), "name": "bench"},
    }


def configurations(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters that tuner's random sampler will draw, by trial, drawn in advance with a study of their own."""
    from tuner.config import load_experiment
    from tuner.driver.plan import make_plan
    from tuner.study.study import Study

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(json.dumps(experiment(job, Path(folder))))
        plan = make_plan(load_experiment(file))
        study = Study(
            Path(folder) / "study.journal",
            name="bench",
            space=plan.space,
            sampler=plan.experiment.search.sampler,
            num_trials=job["trials"],
            seed=0,
            recipe=plan.recipe,
        )
        return [dict(study.ask().params) for _ in range(job["trials"])]


def run_tuner(job: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    """Runs one search as a user starts it; gives its seconds, losses, tokens and bytes. flags: of the command."""
    from tuner.results.ledger import Kind, read_ledger
    from tuner.results.records import SearchRecord

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(json.dumps(experiment(job, Path(folder) / "runs")))
        start = time.time()
        done = subprocess.run(
            [sys.executable, "-m", "tuner", "search", str(file), "--json", *flags],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        wall = time.time() - start
        if done.returncode:
            raise SystemExit(f"tuner search ended with {done.returncode}:\n{done.stderr}")
        events = list(read_ledger(Path(folder) / "runs" / "bench" / "trials.jsonl"))
        record = SearchRecord.fold(events)
    seen = {kind: [e.time - start for e in events if e.event is kind] for kind in Kind}
    trials = [record.trials[n] for n in sorted(record.trials)]
    peaks = [p.memory for t in trials for p in t.points if p.memory]
    return {
        "wall_s": wall,
        "trials": job["trials"],
        "tokens": sum(t.tokens or 0 for t in trials),
        "losses": [t.value for t in trials],
        "params": [t.params for t in trials],
        "seconds": [t.points[-1].seconds for t in trials],
        "peak_bytes": max(peaks, default=None),
        "first_and_last_s": {kind: [round(min(at), 1), round(max(at), 1)] for kind, at in seen.items() if at},
        "memory_before": [t.setup.get("memory_before") for t in trials],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", help="a random base of this shape (see make_base.py); default: the embedded demo")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: bfloat16 with --shape, else float32")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--eval-steps", type=int, default=10)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--validation-rows", type=int, default=128)
    parser.add_argument("--row-tokens", type=int, default=200, help="with --shape: tokens of a row, about")
    parser.add_argument("--rounds", type=int, default=1, help="how often each way runs, in turns")
    parser.add_argument("--ways", default="naive:4,naive-reuse,resident,packed-4")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as scratch:
        job = prepare_job(arguments, Path(scratch))
        report(arguments, job, measure(arguments, job, Path(scratch)))


def prepare_job(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The job that all ways run, as plain data for JSON."""
    from tuner.seeds import derive_seed

    demo = ROOT / "tuner" / "demo"
    job: dict[str, Any] = {
        "base": str(demo / "base"),
        "train": str(demo / "train.jsonl"),
        "validation": str(demo / "validation.jsonl"),
        "max_length": 128,
        "validation_rows": arguments.validation_rows,
        "dtype": arguments.dtype or "float32",
        "quantization": arguments.quantization,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "eval_steps": arguments.eval_steps,
        "trials": arguments.trials,
        "seed": derive_seed(0, "trial"),
        "workers": 1 if arguments.shape else 2,
        "parameters": 1_050_000,
        "peak_flops": peak_flops() if arguments.shape else None,
    }
    if arguments.shape:
        base = scratch / "base"
        code = f"from make_base import make_base, make_rows; from pathlib import Path; b=Path({str(base)!r}); "
        code += f"print(make_base({arguments.shape!r}, b)); make_rows(b, 1000, {arguments.row_tokens})"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True, stdout=subprocess.PIPE)
        job["parameters"] = int(done.stdout.split()[-1])
        job |= {
            "base": str(base),
            "train": str(base / "train.jsonl"),
            "validation": str(base / "validation.jsonl"),
            "max_length": 1024,
            "dtype": arguments.dtype or "bfloat16",
        }
    rows = Path(job["validation"]).read_text(encoding="utf-8").splitlines(keepends=True)[: job["validation_rows"]]
    few = scratch / "validation.jsonl"  # tuner would draw them, the naive search takes the first
    few.write_text("".join(rows), encoding="utf-8")
    job["validation"] = str(few)
    job["configurations"] = configurations(job)
    job["searched"] = sorted(job["configurations"][0])
    return job


def peak_flops() -> float | None:
    """Operations a second of the largest bf16 matrix products, measured; None without a GPU."""
    code = """
import torch, time
if torch.cuda.is_available():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    [a @ b for _ in range(5)]
    torch.cuda.synchronize(); start = time.perf_counter()
    [a @ b for _ in range(20)]
    torch.cuda.synchronize(); print(20 * 2 * 8192**3 / (time.perf_counter() - start))
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(found) if found.strip() else None


def measure(arguments: argparse.Namespace, job: dict[str, Any], scratch: Path) -> dict[str, list[dict[str, Any]]]:
    """Runs every way `rounds` times, in turns."""
    file = scratch / "job.json"
    file.write_text(json.dumps(job))
    ways = arguments.ways.split(",")
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for turn in range(arguments.rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            name, _, few = way.partition(":")
            own = {**job, "trials": int(few or job["trials"])}
            own["configurations"] = job["configurations"][: own["trials"]]
            file.write_text(json.dumps(own))
            start = time.time()
            with busy() as occupancy:
                if name.startswith("naive"):
                    reuse = ["--reuse"] if name == "naive-reuse" else []
                    done = subprocess.run(
                        [sys.executable, ROOT / "scripts" / "naive_search.py", file, *reuse],
                        cwd=ROOT, capture_output=True, text=True, check=False,
                    )  # fmt: skip
                    if done.returncode:
                        raise SystemExit(f"{way} ended with {done.returncode}:\n{done.stderr[-3000:]}")
                    result = json.loads(done.stdout.strip().splitlines()[-1])
                    result["wall_s"] = time.time() - start
                else:
                    result = run_tuner(own, packing(own, name))
            measured[way].append({**result, "occupancy": occupancy()})
            print(f"{way}: {result['wall_s']:.1f} s", file=sys.stderr, flush=True)
    return measured


def packing(job: dict[str, Any], way: str) -> list[str]:
    """The flags of a way: none for "resident"; for "packed-N" N packed trials, and N times the workers at a time."""
    _, _, slots = way.partition("-")
    if not slots:
        return []
    return ["--trials-per-gpu", slots, "--max-concurrent-trials", str(job["workers"] * int(slots))]


@contextmanager
def busy() -> Iterator[Callable[[], float | None]]:
    """Within it, looks five times a second whether the GPU computes. Gives a function for the share afterwards, which
    is None without a GPU."""
    if shutil.which("nvidia-smi") is None:
        yield lambda: None
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with tempfile.TemporaryFile("w+") as seen, subprocess.Popen(query, stdout=seen) as process:
        try:
            yield lambda: shares[0]
        finally:
            process.terminate()
            process.wait()
            seen.seek(0)
            found = [int(word) for word in seen.read().split() if word.isdigit()]
            shares = [sum(found) / (100 * len(found)) if found else None]


def a_trial(result: dict[str, Any], trials: int) -> float:
    """Seconds a trial where `trials` run: what does not grow with their number counts once."""
    growing: float = result.get("fit_s", result["wall_s"])
    return (result["wall_s"] - growing) / trials + growing / result["trials"]


def report(arguments: argparse.Namespace, job: dict[str, Any], measured: dict[str, list[dict[str, Any]]]) -> None:
    """Prints a row for each way: wall time, seconds a trial, trials an hour, and their ratio to the first way."""
    first = next(iter(measured))
    walls = {way: [r["wall_s"] for r in results] for way, results in measured.items()}
    each = {way: statistics.median(a_trial(r, job["trials"]) for r in results) for way, results in measured.items()}
    rows = []
    for way, results in measured.items():
        tokens, last = results[-1].get("tokens"), results[-1]
        spread = max(
            abs(a - b)
            for r in results
            for a, b in zip(r["losses"], measured[first][0]["losses"], strict=False)
            if a is not None and b is not None
        )
        rows.append(
            {
                "way": way,
                "wall_s": [round(w, 2) for w in walls[way]],
                "trials": last["trials"],
                "seconds_a_trial": round(each[way], 2),
                "trials_an_hour": round(3600 / each[way], 1),
                "times_the_first": round(each[first] / each[way], 2),
                "largest_loss_difference": spread,
                "occupancy": last["occupancy"],
                "tokens_a_second": round(tokens / last["wall_s"]) if tokens else None,
                "goodput": 4 * job["parameters"] * tokens / last["wall_s"] / job["peak_flops"]
                if tokens and job["peak_flops"]
                else None,
                "peak_bytes": last.get("peak_bytes"),
                "memory_before": last.get("memory_before"),
                "first_and_last_s": last.get("first_and_last_s"),
            }
        )
    from tuner.results.versions import versions

    about = {"machine": machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    for row in rows:
        print(
            f"{row['way']:<14} {row['seconds_a_trial']:>8.2f} s a trial  {row['trials_an_hour']:>8.1f} trials/h  "
            f"{row['times_the_first']:>6.2f}x  loss difference {row['largest_loss_difference']:.1e}",
            file=sys.stderr,
        )
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        print(json.dumps({"about": about, "settings": settings, "rows": rows, "losses": {
            way: results[-1]["losses"] for way, results in measured.items()}}))  # fmt: skip


def machine() -> str:
    """The machine in words."""
    try:
        gpus = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout.strip().splitlines()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        gpus = []
    return f"{os.cpu_count()} {platform.machine()} cores" + (f", {len(gpus)} x {gpus[0]}" if gpus else "")


if __name__ == "__main__":
    main()
