"""The run folder: `<storage_path>/<name>/`, one search, one writer.

experiment.yaml, resolved.json   the search file as written; every setting, defaults included
trials.jsonl                     the ledger
study.journal                    the Optuna study
data/                            tokenized data (Arrow)
adapters/                        the best few trials' adapters while the search runs
best/                            the winner
evaluation.json                  the last evaluation on test rows, if there was one
logs/                            what the libraries printed
tensorboard/                     TensorBoard's event files, one folder a trial
control/                         requests to the driver while it runs, and its answers
tune/                            Ray Tune's own state
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner import __version__
from tuner.config.sections import RUN_NAME, RUN_NAME_RULE
from tuner.contract import InputError
from tuner.error_text import all_near
from tuner.results import lock, storage
from tuner.results.command_line import resume_command_line
from tuner.results.ledger import UnreadableLine, read_numbered
from tuner.results.records import SearchRecord
from tuner.results.untrusted_read import is_plain_file

NEEDED_BYTES = 256 * 2**20
"""Free bytes that a search needs at its start by default; with less, writes would soon fail."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder, and the paths in it."""

    path: Path
    """The folder."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def ledger(self) -> Path:
        """`trials.jsonl`."""
        return self.path / "trials.jsonl"

    @property
    def study(self) -> Path:
        """The journal of the Optuna study."""
        return self.path / "study.journal"

    @property
    def experiment(self) -> Path:
        """The search file as written."""
        return self.path / "experiment.yaml"

    @property
    def resolved(self) -> Path:
        """Every setting of the search, as JSON."""
        return self.path / "resolved.json"

    @property
    def evaluation(self) -> Path:
        """The last evaluation on test rows, as JSON."""
        return self.path / "evaluation.json"

    @property
    def data(self) -> Path:
        """The folder of the tokenized data."""
        return self.path / "data"

    @property
    def adapters(self) -> Path:
        """The folder of the trials' adapters."""
        return self.path / "adapters"

    @property
    def best(self) -> Path:
        """The folder of the winner; it is there once a search has ended."""
        return self.path / "best"

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders that every run folder has."""
        return self.logs, self.adapters, self.data

    def restore_places(self) -> None:
        """Makes those of `places` that were removed. Raises InputError if something else has their name."""
        for place in self.places:
            try:
                place.mkdir(exist_ok=True)
            except FileExistsError as error:
                raise InputError(
                    "is no folder", where=str(place), expected="a folder of this run", remedy="move it away"
                ) from error

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def control(self) -> Path:
        """The folder of the requests to the driver and its answers."""
        return self.path / "control"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def tune(self) -> Path:
        return self.path / "tune"

    def trial(self, number: int) -> Path:
        """The folder of trial `number`, with its adapter."""
        return self.adapters / f"{number:04d}"

    def attempt(self, number: int, attempt: int) -> Path:
        """The folder of one attempt: an earlier attempt that counts as dead may still write into its own."""
        place = self.trial(number)
        return place if attempt == 1 else place / f"attempt-{attempt}"

    def from_here(self, adapter: str | None) -> str | None:
        """An adapter's path relative to the run folder, so that the folder may be moved."""
        path = Path(adapter) if adapter else None
        return str(path.relative_to(self.path)) if path and path.is_relative_to(self.path) else adapter

    def log(self, number: int) -> Path:
        """The log of trial `number`."""
        return self.logs / f"trial-{number:04d}.log"

    def record(self) -> SearchRecord:
        """The record of the search, from its ledger. Raises InputError if the ledger cannot be read."""
        record, number = SearchRecord(), 0
        try:
            for number, event in read_numbered(self.ledger):  # noqa: B007
                record.apply(event)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror or error})", where=str(self.ledger)) from error
        except UnreadableLine as error:
            raise self._unreadable(str(error), error.number, foreign=error.foreign) from error
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            told = f"{self.ledger}, line {number}: does not follow from the lines before it ({error!r:.200})"
            raise self._unreadable(told, number) from error
        if not number and (self.study.exists() or (self.best / "manifest.json").exists()):
            raise InputError(
                "is empty, and this search has run",
                where=str(self.ledger),
                expected="the ledger as the last session left it",
                remedy="restore it from a backup",
            )
        return record

    def _unreadable(self, told: str, number: int, foreign: bool = False) -> InputError:
        """The error for a line of the ledger, with what can be done. To delete only that line is no remedy: the lines
        after it depend on it."""
        if foreign:
            return InputError(
                told,
                expected=f"an event that tuner {__version__} knows; the line is whole, its checksum fits",
                remedy="read it with the version that wrote it, a newer one; nothing in the file is damaged",
            )
        remedy = "restore the ledger from a backup"
        if number > 1:
            remedy += (
                f"; or go on without all that follows line {number - 1}: cut the ledger off there, delete "
                f"{self.study.name}, and a resume runs again what is lost"
            )
        return InputError(told, remedy=remedy)


def default_name() -> str:
    """The name of a search that was given none: date and time."""
    return time.strftime("%Y%m%d-%H%M%S")


def create_run(storage_path: Path, name: str, needed: int = NEEDED_BYTES) -> RunFolder:
    """Makes a new run folder. Raises InputError if the name is not valid or is taken, if the folder cannot be made, or
    if the disk has less than `needed` free bytes."""
    folder = _named(storage_path, name)
    _remove_if_forsaken(folder)
    _require_free(folder)
    try:
        folder.path.mkdir(parents=True)
        for place in folder.places:
            place.mkdir()
        free = shutil.disk_usage(folder.path).free
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            "is no folder, and none can be made here",
            where=str(storage_path),
            remedy="give another --storage-path",
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write here ({error.strerror})",
            where=str(folder.path),
            remedy="make room or give another --storage-path",
        ) from error
    if free < needed:
        shutil.rmtree(folder.path)
        raise InputError(
            f"only {free / 2**20:.0f} MiB are free on this disk",
            where=str(storage_path),
            expected=f"at least {needed / 2**20:.0f} MiB at the start (run.min_free_mb)",
            remedy="make room or give another --storage-path",
        )
    return folder


def _require_free(folder: RunFolder) -> None:
    """Raises InputError if something has the run's name, and says what it is: only a run can be resumed."""
    path = folder.path
    if path.is_symlink() and not path.exists():
        holder = "a link that leads nowhere"
    elif path.exists() and not path.is_dir():
        holder = "a file"
    elif path.is_dir() and not folder.resolved.exists() and not folder.ledger.exists():
        holder = "a folder without a run in it"
    elif path.exists() or storage.exists(path):
        raise InputError(
            f"the run {folder.name!r} is already there",
            where=str(path),
            remedy=f"go on with it ({resume_command_line(path)}), or choose another --name",
        )
    else:
        return
    raise InputError(
        f"the name {folder.name!r} is taken by {holder}",
        where=str(path),
        remedy="choose another --name, or remove it if no search is just beginning there",
    )


def _remove_if_forsaken(folder: RunFolder) -> None:
    """Removes the folder of a driver that was killed before its first trial (Ray's libraries abort the process if they
    get no threads), so that the same command can begin again."""
    if not (folder.path / lock.NAME).is_file() or lock.is_held(folder.path):
        return
    with suppress(InputError):
        held = lock.RunLock(folder.path)
        try:
            if not folder.record().trials:
                shutil.rmtree(folder.path, ignore_errors=True)
        finally:
            held.release()


def was_begun(storage_path: Path, name: str) -> bool:
    """Whether a run of this name can be resumed. It is copied from its object store first, and gets an empty ledger if
    its driver died before the first event."""
    folder = _named(storage_path, name)
    storage.pull_run(folder.path)
    if folder.resolved.is_file() and not folder.ledger.exists():
        folder.ledger.touch()
    return folder.ledger.is_file()


def open_run(storage_path: Path, name: str) -> RunFolder:
    """Finds a run folder for reading, and copies it from its object store first. name: of the run, or a path to its
    folder. Raises InputError with the nearest names if there is none."""
    as_path = Path(name)
    if (as_path / "trials.jsonl").is_file() and (as_path.is_absolute() or os.sep in name):
        return RunFolder(as_path.resolve())
    folder = _named(storage_path, name)
    storage.pull_run(folder.path)
    if not folder.ledger.is_file():
        runs = names_of_runs(storage_path)
        near = all_near(name, runs, most=3, cutoff=0.5) or runs[-3:]
        raise InputError(
            f"there is no run {name!r}",
            where=str(storage_path),
            expected=f"one of: {', '.join(near)}" if near else "a finished or running search (none is here)",
            remedy="give --storage-path if the runs lie elsewhere",
        )
    return folder


def names_of_runs(storage_path: Path) -> list[str]:
    """The names of the runs in a folder; anybody may write there, so other entries are left out."""
    try:
        names = sorted(name for name in os.listdir(storage_path) if RUN_NAME.fullmatch(name))  # noqa: PTH208
    except OSError:
        return []
    return [name for name in names if is_plain_file(storage_path / name / "trials.jsonl")]


def _named(storage_path: Path, name: str) -> RunFolder:
    if not RUN_NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a run",
            where="run.name",
            expected=RUN_NAME_RULE,
        )
    return RunFolder(storage_path.resolve() / name)
