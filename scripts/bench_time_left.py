"""Measures the live view's time left: at how many of the moments of a search the end lay in the range that it named.

    python scripts/bench_time_left.py                 # makes searches with the toy; ten minutes on two cores
    python scripts/bench_time_left.py runs/first ...  # of searches that have ended

A hundred moments of each search, evenly in time. Not counted are those before the first evaluation, where no time is
named, and the last second. Prints for each search: the moments in the range, those at which it ended later, the median
ratio of the range's ends, and the median of the likely time over the true one.

Of the first five of the toy's searches: 270 of 312, of the fifth (8 trials, 1 worker) only 46 of 88. Of the embedded
example on two busy cores: 59 of 63.

The toy's searches differ in what the estimate depends on: workers, scheduler, size, how alike the trials are, how fast
the machine is meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
os.environ["TUNER_ALLOW_MODULES"] = "tests.programs.toy"
sys.path.insert(0, str(ROOT))

from tuner.report.progress import Left, estimate  # noqa: E402
from tuner.results.ledger import read_ledger  # noqa: E402
from tuner.results.records import SearchRecord  # noqa: E402

MOMENTS = 100
RATE = {"type": "float", "low": 1e-5, "high": 1.0, "log": True}
BATCH = {"type": "int", "low": 1, "high": 64}
SEARCHES: dict[str, dict[str, Any]] = {
    "asha, 16 trials, 2 workers": {"num_trials": 16, "pace": 0.4, "workers": 2},
    "asha, 48 trials, 3 workers": {"num_trials": 48, "pace": 0.2, "workers": 3},
    "asha, 16 trials at once": {"num_trials": 16, "pace": 2.0, "workers": 16},
    "no rungs, 12 trials, 2 workers": {"num_trials": 12, "pace": 0.3, "workers": 2, "scheduler": "none"},
    "no rungs, 8 trials, 1 worker": {"num_trials": 8, "pace": 0.3, "workers": 1, "scheduler": "none"},
    "soft rungs, 24 trials, 2 workers": {"num_trials": 24, "pace": 0.3, "workers": 2, "factor": 2},
    "epochs, trials of unlike length": {"num_trials": 20, "pace": 0.3, "workers": 2, "epochs": 1.0, "batch": True},
    "a tenth of the trials is killed once": {"num_trials": 20, "pace": 0.3, "workers": 2, "killed": 0.1},
    "two of sixteen fail": {"num_trials": 16, "pace": 0.3, "workers": 2, "each": {"3": "raise", "7": "nan"}},
    "300 trials of no time": {"num_trials": 300, "pace": 0.0, "workers": 2},
}


@dataclass(frozen=True)
class Moment:
    """A moment of a search: the seconds to its end, and those that were named."""

    true: float
    left: Left


def moments(run: Path) -> list[Moment]:
    """The moments of a search that has ended. run: its folder, or its ledger."""
    events = list(read_ledger(run / "trials.jsonl" if run.is_dir() else run))
    begin, end = events[0].time, events[-1].time
    record, read, found = SearchRecord(), 0, []
    for number in range(1, MOMENTS):
        now = begin + (end - begin) * number / MOMENTS
        while events[read].time <= now:
            record.apply(events[read])
            read += 1
        left = estimate(record, record.wall_s + now - events[read - 1].time).left
        if left is not None and end - now >= 1:
            found.append(Moment(end - now, left))
    return found


def judged(name: str, found: list[Moment]) -> dict[str, Any]:
    """What is said of a search."""
    return {
        "search": name,
        "moments": len(found),
        "in_range": sum(m.left.least <= m.true <= m.left.most for m in found),
        "later": sum(m.true > m.left.most for m in found),
        "width": round(median(m.left.most / m.left.least for m in found), 2),
        "likely": round(median(m.left.likely / m.true for m in found), 2),
    }


def searched(name: str, folder: Path, *, num_trials: int, pace: float, workers: int, **more: Any) -> Path:
    """Runs a search with the toy, and returns its folder."""
    train = {"pace": pace, "killed": more.get("killed", 0.0), "each": more.get("each", {})}
    train |= {"num_train_epochs": more["epochs"]} if "epochs" in more else {}
    space = {"parameters": {"learning_rate": RATE, **({"batch_size": BATCH} if "batch" in more else {})}}
    factor = {"reduction_factor": more["factor"]} if "factor" in more else {}
    settings = {
        "train": train,
        "search": {"space": space, "num_trials": num_trials, "seed": 0},
        "scheduler": {"kind": more.get("scheduler", "asha"), **factor},
        "resources": {"max_concurrent_trials": workers, "cpus_per_trial": min(1.0, 2 / workers)},
        "run": {"program": "tests.programs.toy:Toy", "storage_path": str(folder), "name": name},
    }
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(settings), "utf-8")  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "search", str(file), "--plain"],
        cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    return folder / name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="run folders; none: searches with the toy")
    parser.add_argument("--keep", type=Path, help="folder for the toy's searches")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tuner-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs = [(str(run), run, None) for run in given.runs]
        runs = runs or [(name, folder / f"s{i}", how) for i, (name, how) in enumerate(SEARCHES.items())]
        told = []
        for name, run, how in runs:
            if how is not None and not (run / "trials.jsonl").exists():
                searched(run.name, folder, **how)
            told.append(judged(name, moments(run)))
            row = told[-1]
            share = 100 * row["in_range"] / max(1, row["moments"])
            line = f"{row['in_range']:3} of {row['moments']:3} ({share:3.0f}%), {row['later']:2} later, "
            line += f"range x{row['width']:.1f}, likely x{row['likely']:.2f}: {name}"
            print(json.dumps(row) if given.json else line, flush=True)
        if not given.json:
            total, there = sum(row["moments"] for row in told), sum(row["in_range"] for row in told)
            print(f"{there} of {total} moments ({100 * there / max(1, total):.0f}%)")


if __name__ == "__main__":
    main()
