"""Measures what a trial's row in the Ray dashboard costs, on a machine that does nothing else.

    python scripts/bench_rows.py --trials 32

Runs two searches of the toy (tests/programs/toy.py), in which nobody computes anything: one whose trials last five
seconds, so that each gets a row, and one whose trials are over before a row is due. Prints the CPU seconds that the
machine spent on each, and the difference for each trial: its row, with what Ray's processes do in the longer time.
To compare two versions, run it in both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EVALUATIONS = 10
SPACE = {"parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True}}}


def busy() -> float:
    """CPU seconds that the machine has spent since it started, without idle time and I/O wait."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system = map(int, first[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def search(folder: Path, name: str, trials: int, pace: float) -> tuple[float, float]:
    """CPU and wall seconds of a search. pace: seconds between a trial's evaluations."""
    file = folder / f"{name}.yaml"
    settings = {
        "train": {"max_steps": 100, "pace": pace},
        "search": {"num_trials": trials, "sampler": "random", "space": SPACE},
        "scheduler": "none",
        "run": {"program": "tests.programs.toy:Toy", "trackers": [], "name": name, "storage_path": str(folder)},
    }
    file.write_text(json.dumps(settings))
    environment = {**os.environ, "TUNER_ALLOW_MODULES": "tests"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    cpu, began = busy(), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "tuner", "search", str(file)], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    return busy() - cpu, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for repeat in range(given.repeats):
            folder = Path(scratch, str(repeat))
            folder.mkdir()
            with_rows, wall = search(folder, "long", given.trials, 5 / EVALUATIONS)
            without, short = search(folder, "short", given.trials, 0.5 / EVALUATIONS)
            print(
                f"rows: {with_rows:.1f} s of CPU in {wall:.1f} s, none: {without:.1f} s in {short:.1f} s, "
                f"{(with_rows - without) / given.trials:.2f} s a trial",
                flush=True,
            )


if __name__ == "__main__":
    main()
