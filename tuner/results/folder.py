"""The run folder: `<storage_path>/<name>/`, one search, one writer.

experiment.yaml, resolved.json   as written; as understood
trials.jsonl                     the ledger
study.journal                    the Optuna study
data/                            tokenized data (Arrow)
adapters/                        the best few trials' adapters while the search runs
best/                            the winner
logs/                            what the libraries beneath said
tune/                            Ray Tune's own state
"""

from __future__ import annotations

import difflib
import fcntl
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tuner.contract import InputError
from tuner.results import storage
from tuner.results.ledger import read_ledger
from tuner.results.records import SearchRecord

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NEEDED_BYTES = 256 * 2**20
"""Free space a search asks for at its start; under it the first snapshot of anything may already fail."""


@dataclass(frozen=True)
class RunFolder:
    """The places in a run folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def ledger(self) -> Path:
        return self.path / "trials.jsonl"

    @property
    def study(self) -> Path:
        return self.path / "study.journal"

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def resolved(self) -> Path:
        return self.path / "resolved.json"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def adapters(self) -> Path:
        return self.path / "adapters"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def tune(self) -> Path:
        return self.path / "tune"

    def trial(self, number: int) -> Path:
        """Where trial `number` keeps its adapter."""
        return self.adapters / f"{number:04d}"

    def log(self, number: int) -> Path:
        return self.logs / f"trial-{number:04d}.log"

    def record(self) -> SearchRecord:
        """What the ledger says. Raises InputError where it cannot be read."""
        try:
            return SearchRecord.fold(read_ledger(self.ledger))
        except ValueError as error:
            raise InputError(str(error), remedy="restore the line from a backup, or delete it") from error


class RunLock:
    """Holds a run folder for one driver. Released with the process, however it ends."""

    def __init__(self, folder: RunFolder) -> None:
        self._file: IO[str] = (folder.path / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise InputError(
                f"the run {folder.name!r} is being written by another driver" + (f" ({holder})" if holder else ""),
                where=str(folder.path),
                remedy="wait for it, or start under another name; watch it with: "
                f"python -m tuner status {folder.name}{_elsewhere(folder)}",
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def default_name() -> str:
    """A name for a search that was given none: its date and time."""
    return time.strftime("%Y%m%d-%H%M%S")


def create_run(storage_path: Path, name: str) -> RunFolder:
    """Makes a new run folder. Raises InputError where the name is unfit, taken, or the disk cannot take it."""
    folder = _named(storage_path, name)
    if folder.path.exists() or storage.exists(folder.path):
        raise InputError(
            f"the run {name!r} is already there",
            where=str(folder.path),
            remedy=f"go on with it (python -m tuner search --resume {name}{_elsewhere(folder)}), "
            "or choose another --name",
        )
    try:
        folder.path.mkdir(parents=True)
        for place in (folder.logs, folder.adapters, folder.data):
            place.mkdir()
        free = shutil.disk_usage(folder.path).free
    except OSError as error:
        raise InputError(
            f"cannot write here ({error.strerror})",
            where=str(folder.path),
            remedy="make room or give another --storage-path",
        ) from error
    if free < NEEDED_BYTES:
        shutil.rmtree(folder.path)
        raise InputError(
            f"only {free / 2**20:.0f} MiB are free on this disk",
            where=str(storage_path),
            expected=f"at least {NEEDED_BYTES / 2**20:.0f} MiB at the start",
            remedy="make room or give another --storage-path",
        )
    return folder


def was_begun(storage_path: Path, name: str) -> bool:
    """Whether a run of this name is there to go on with, be it that its driver died before the first event."""
    folder = _named(storage_path, name)
    storage.pull_run(folder.path)
    if folder.resolved.is_file() and not folder.ledger.exists():
        folder.ledger.touch()
    return folder.ledger.is_file()


def open_run(storage_path: Path, name: str) -> RunFolder:
    """Finds a run folder for reading. `name` may also be a path to one. Raises InputError with the nearest names."""
    as_path = Path(name)
    if (as_path / "trials.jsonl").is_file() and (as_path.is_absolute() or os.sep in name):
        return RunFolder(as_path.resolve())
    folder = _named(storage_path, name)
    storage.pull_run(folder.path)
    if not folder.ledger.is_file():
        runs = sorted(p.parent.name for p in storage_path.glob("*/trials.jsonl")) if storage_path.is_dir() else []
        near = difflib.get_close_matches(name, runs, n=3, cutoff=0.5) or runs[-3:]
        raise InputError(
            f"there is no run {name!r}",
            where=str(storage_path),
            expected=f"one of: {', '.join(near)}" if near else "a finished or running search (none is here)",
            remedy="give --storage-path if the runs lie elsewhere",
        )
    return folder


def _elsewhere(folder: RunFolder) -> str:
    """The option that finds a run outside the default storage path."""
    storage = folder.path.parent
    return "" if storage == Path("runs").resolve() else f" --storage-path {storage}"


def _named(storage_path: Path, name: str) -> RunFolder:
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a run",
            where="run.name",
            expected="letters, digits, '.', '_' and '-', at most 64, beginning with a letter or a digit: "
            "a run stays inside the storage path",
        )
    return RunFolder(storage_path.resolve() / name)
