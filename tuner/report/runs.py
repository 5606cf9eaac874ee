"""Lists the runs of a folder: how each stands, and its best trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.contract import InputError
from tuner.report import standing
from tuner.report.lines import Line, clean, crop, line, pad, shorten, width_of
from tuner.report.summary import is_halted, is_interrupted
from tuner.results.folder import RunFolder, names_of_runs
from tuner.results.lock import is_held
from tuner.results.records import SearchRecord
from tuner.results.storage import is_written

NAME_WIDTH = 32
"""The most cells of a run's name."""


@dataclass(frozen=True)
class RunRow:
    """One run of the list."""

    name: str
    """Its name."""
    record: SearchRecord | None = None
    """What its ledger says; None where that cannot be read."""
    active: bool = False
    """Whether a driver works on it now."""
    trouble: str = ""
    """Why the ledger cannot be read."""

    @property
    def state(self) -> str:
        """How it stands: "running", "done", "halted", "interrupted", "stopped" or "damaged"."""
        if self.record is None:
            return "damaged"
        if self.active:
            return "paused" if self.record.paused else "running"
        if is_halted(self.record):
            return "halted"
        if is_interrupted(self.record):
            return "interrupted"
        return "stopped" if self.record.outcome == "stopped" else "done"

    @property
    def best(self) -> str:
        """Its best trial beside the recipe."""
        if self.record is None:
            return self.trouble
        return standing.so_far(self.record) if self.active else standing.at_the_end(self.record)

    def to_dict(self) -> dict[str, Any]:
        """The row for programs."""
        record = self.record
        best = record.best if record else None
        return {
            "name": self.name,
            "state": self.state,
            "trials": len(record.trials) if record else None,
            "num_trials": record.num_trials if record else None,
            "started": record.started if record else None,
            "best": best and {"trial": best.number, "metrics": best.best_metrics},
        }


def rows_of(storage_path: Path) -> list[RunRow]:
    """A row for each run in a folder."""
    rows = []
    for name in names_of_runs(storage_path):
        folder = RunFolder(storage_path.resolve() / name)
        try:
            record = folder.record()
        except InputError as error:
            rows.append(RunRow(name, trouble=str(error).partition("\n")[0]))
            continue
        rows.append(RunRow(name, record, not record.finished and (is_held(folder.path) or is_written(folder.path))))
    return rows


def runs_report(runs: Sequence[RunRow], width: int, now: float | None = None) -> list[Line]:
    """A row a run, the one that was begun last first. now: seconds since 1970."""
    rows = sorted(runs, key=lambda run: -(run.record.started or 0.0) if run.record else 0.0)
    told = [(shorten(clean(r.name), NAME_WIDTH), r.state, _trials(r), _begun(r, now or time.time())) for r in rows]
    heads = ("run", "state", "trials", "begun")
    widths = [max(map(width_of, column)) for column in zip(heads, *told, strict=True)]
    out = [crop(line(("  ".join([*map(pad, heads, widths), "best"]), "head")), width)]
    for row, cells in zip(rows, told, strict=True):
        style = {"running": "run", "halted": "bad", "damaged": "bad", "interrupted": "warn"}.get(row.state, "")
        left = "  ".join(map(pad, cells, widths))
        out.append(crop(line((left, style), f"  {clean(row.best)}"), width))
    return out


def _trials(run: RunRow) -> str:
    if run.record is None:
        return "-"
    return f"{run.record.num_ended}/{max(run.record.num_trials, run.record.num_ended)}"


def _begun(run: RunRow, now: float) -> str:
    started = run.record.started if run.record else None
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if started is not None and started <= now else "-"
