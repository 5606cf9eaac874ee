"""Measures what the driver costs: thousands of trials that cost nothing, in a search and in stock Ray Tune.

    python scripts/bench_driver.py --trials 10000 --json
    python scripts/bench_driver.py --trials 1000 --ways tuner,stock

The toy (tests/programs/toy.py) computes its loss from its parameters, in microseconds, and saves an adapter of one
small file when the loss is its best. All the rest is the driver: sampler, scheduler, ledger, study, Ray's own loop.

The peer ("stock") is Ray Tune as its documentation has it: a class trainable around the same toy, `reuse_actors=True`,
OptunaSearch with its TPE study in memory, ASHAScheduler with the same rungs, evaluations at the same steps, as many
workers. "stock-lean" is the same without Ray's result.json, CSV and TensorBoard files, which are on by default.
Neither writes anything from which a killed driver could continue.

Prints for each way: milliseconds a trial over each thousand trials, CPU milliseconds and memory of the driver process;
for tuner also the seconds until a resume begins its first trial.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
os.environ["TUNER_ALLOW_MODULES"] = "tests.programs.toy"
sys.path.insert(0, str(ROOT))

STEPS = 27
SPACE = {
    "parameters": {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "batch_size": {"type": "int", "low": 1, "high": 64},
    }
}


class Watch:
    """Samples a process once a second: (time in seconds, its CPU seconds, its memory in bytes)."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._process = psutil.Process(pid)
        self.samples: list[tuple[float, float, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        import psutil

        while not self._done.wait(1.0):
            try:
                cpu = self._process.cpu_times()
                self.samples.append((time.time(), cpu.user + cpu.system, self._process.memory_info().rss))
            except psutil.NoSuchProcess:
                return

    def stop(self) -> None:
        """Ends the sampling."""
        self._done.set()
        self._thread.join()


def run_tuner(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Runs a search as a user starts it, then resumes it with two trials more."""
    file = folder / "bench.yaml"
    experiment = {
        "train": {"max_steps": STEPS},
        "search": {"space": SPACE, "num_trials": job["trials"], "seed": 0},
        "run": {
            "program": "tests.programs.toy:Toy",
            "storage_path": str(folder / "runs"),
            "name": "bench",
        },
        "resources": {"max_concurrent_trials": job["workers"]},
    }
    file.write_text(json.dumps(experiment))
    command = [sys.executable, "-m", "tuner", "search"]
    began, samples = _carried_out([*command, str(file), "--json"], folder / "tuner.log")
    first, ended, _ = _read(folder)
    result = {"began": began, "first": first[0], "ended": ended, "samples": samples}
    more = [*command, "--resume", "bench", "--storage-path", str(folder / "runs")]
    began, samples = _carried_out([*more, "--num-trials", str(job["trials"] + 2), "--json"], folder / "resumed.log")
    first, _, losses = _read(folder)
    run = folder / "runs" / "bench"
    return {
        **result,
        "first_trial_after_s": round(result["first"] - result["began"], 2),
        "resumed_after_s": round(first[job["trials"]] - began, 2),
        "resumed_peak_bytes": max((rss for _, _, rss in samples), default=0),
        "best": min(loss for loss in losses if loss is not None),
        "ledger_bytes": (run / "trials.jsonl").stat().st_size,
        "journal_bytes": (run / "study.journal").stat().st_size,
    }


def _carried_out(command: list[str], log: Path) -> tuple[float, list[tuple[float, float, int]]]:
    """Runs a command; gives the time at which it began, and its samples. Ends this process if it fails."""
    began = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        watch = Watch(process.pid)
        process.wait()
    watch.stop()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return began, watch.samples


def _read(folder: Path) -> tuple[list[float], list[float], list[float | None]]:
    """When trials began on a worker, when they ended, and their best losses, from the ledger."""
    from tuner.results.ledger import Kind, read_ledger

    began, ended, losses = [], [], []
    for event in read_ledger(folder / "runs" / "bench" / "trials.jsonl"):
        if event.event is Kind.SETUP:
            began.append(event.time)
        elif event.event is Kind.ENDED:
            ended.append(event.time)
            losses.append((event.best or {}).get("eval_loss"))
    return began, ended, losses


def run_stock(job: dict[str, Any], folder: Path, *, lean: bool) -> dict[str, Any]:
    """Runs the peer in a process of its own, so that it is sampled from outside as tuner is."""
    file = folder / "stock.json"
    file.write_text(json.dumps({**job, "lean": lean, "folder": str(folder), "answer": str(folder / "answer.json")}))
    began, samples = _carried_out([sys.executable, __file__, "--stock", str(file)], folder / "stock.log")
    return {"began": began, "samples": samples, **json.loads((folder / "answer.json").read_text())}


def stock(job: dict[str, Any]) -> None:
    """Runs the toy in stock Ray Tune, and writes the times of its trials to `job["answer"]`."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # as verbose=0 below: it prints nothing
    if job["lean"]:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch
    from ray.tune.stopper import TimeoutStopper

    from tests.programs.toy import Toy
    from tuner.contract import Assignment, Preparation
    from tuner.scheduling.ladder import make_ladder

    ladder = make_ladder(STEPS, grace_period=1, reduction_factor=3, warmup=0.0, eval_every=0.1)
    evaluate_at = ladder.evaluate_at
    (folder := Path(job["folder"]) / "adapters").mkdir()
    settings = {"train": {"max_steps": STEPS}, "unprepared": ""}

    class Trainable(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.toy = Toy(settings, Preparation(folder=str(folder)))
            self.begin(config)

        def begin(self, config: dict[str, Any]) -> None:
            place = folder / self.trial_id
            place.mkdir(exist_ok=True)
            self.toy.start(
                Assignment(number=0, params=dict(config), seed=0, evaluate_at=evaluate_at, folder=str(place))
            )

        def step(self) -> dict[str, Any]:
            said = self.toy.step()
            return {"eval_loss": said.eval_loss, "step": said.step, "done": said.done}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.begin(new_config)
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

        def load_checkpoint(self, checkpoint: Any) -> None: ...

    class Clock(tune.Callback):
        def __init__(self) -> None:
            self.first: float | None = None
            self.ended: list[float] = []

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.first = self.first or time.time()

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.ended.append(time.time())

    clock = Clock()
    ray.init(address="local", log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(Trainable, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(1e-5, 1.0), "batch_size": tune.randint(1, 65)},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(seed=0),
            scheduler=ASHAScheduler(time_attr="step", max_t=STEPS, grace_period=1, reduction_factor=3),
            num_samples=job["trials"],
            max_concurrent_trials=job["workers"],
            reuse_actors=True,
            metric="eval_loss",
            mode="min",
        ),
        run_config=tune.RunConfig(
            storage_path=str(Path(job["folder"]) / "stock"), verbose=0, callbacks=[clock],
            stop=TimeoutStopper(job["limit_s"]),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )  # fmt: skip
    best = tuner.fit().get_best_result().metrics["eval_loss"]
    Path(job["answer"]).write_text(json.dumps({"first": clock.first, "ended": clock.ended, "best": best}))
    ray.shutdown()


def digest(job: dict[str, Any], way: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Makes a row of the table of what was measured of a way. Its blocks have 1,000 trials, or a quarter of all."""
    ended, samples = measured["ended"], measured["samples"]
    block = min(1000, max(1, len(ended) // 4))
    marks = [measured["first"], *ended[block - 1 :: block]]
    spans = list(itertools.pairwise(marks))
    walls = [(b - a) / block for a, b in spans]
    cpus = [(_at(samples, b) - _at(samples, a)) / block for a, b in spans]
    memory = [max((rss for t, _, rss in samples if a <= t <= b), default=0) for a, b in spans]
    return {
        "way": way,
        "trials": len(ended),
        "block": block,
        "ms_a_trial": [round(1000 * w, 1) for w in walls],
        "driver_cpu_ms_a_trial": [round(1000 * c, 1) for c in cpus],
        "driver_mib": [round(m / 2**20) for m in memory],
        "last_over_first": round(walls[-1] / walls[0], 2),
        "cpu_last_over_first": round(cpus[-1] / cpus[0], 2) if cpus[0] else None,
        "trials_s": round(ended[-1] - measured["first"], 1),
        "whole_command_s": round(samples[-1][0] - measured["began"], 1),
        "peak_mib": round(max(rss for _, _, rss in samples) / 2**20),
        **{k: v for k, v in measured.items() if k not in ("ended", "samples", "began", "first")},
    }


def _at(samples: list[tuple[float, float, int]], when: float) -> float:
    """CPU seconds used until `when`, interpolated between two samples."""
    before = max((s for s in samples if s[0] <= when), default=samples[0])
    after = min((s for s in samples if s[0] >= when), default=samples[-1])
    share = (when - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return before[1] + share * (after[1] - before[1])


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table for people."""
    print(f"{'way':<12} {'trials':>7} {'ms a trial: first':>18} {'last':>7} {'ratio':>6} {'cpu ratio':>10} "
          f"{'cpu ms':>7} {'MiB':>6} {'wall s':>8}  best", file=sys.stderr)  # fmt: skip
    for row in rows:
        cpu = sum(row["driver_cpu_ms_a_trial"]) / len(row["driver_cpu_ms_a_trial"])
        resumed = f"  resumed after {row['resumed_after_s']} s" if "resumed_after_s" in row else ""
        print(f"{row['way']:<12} {row['trials']:>7} {row['ms_a_trial'][0]:>18} {row['ms_a_trial'][-1]:>7} "
              f"{row['last_over_first']:>6} {row['cpu_last_over_first']:>10} {cpu:>7.1f} {row['peak_mib']:>6} "
              f"{row['trials_s']:>8}  {row['best']:.6f}{resumed}", file=sys.stderr)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ways", default="tuner,stock-lean,stock")
    parser.add_argument("--rounds", type=int, default=1, help="how often each way runs, in turns")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which the peer takes no more trials")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stock", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stock:
        stock(json.loads(Path(arguments.stock).read_text()))
        return
    from tuner.results.versions import versions

    job = {"trials": arguments.trials, "workers": arguments.workers, "limit_s": arguments.limit}
    rows = []
    ways = arguments.ways.split(",")
    for turn in range(arguments.rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            with tempfile.TemporaryDirectory() as folder:
                run = run_tuner(job, Path(folder)) if way == "tuner" else run_stock(
                    job, Path(folder), lean=way == "stock-lean")  # fmt: skip
            rows.append(digest(job, way, run))
            show(rows[-1:])
    show(rows)
    about = {
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
        "load": os.getloadavg(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if arguments.json:
        print(json.dumps({"about": about, "settings": job, "rows": rows}))


if __name__ == "__main__":
    main()
