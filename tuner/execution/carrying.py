"""What a node of a cluster does where runs are kept in an object store: rows come, adapters go.

Everywhere else these functions do nothing: the run folder is the same on every node.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

from tuner.config.paths import storage_uri
from tuner.contract import Assignment, Evaluation, Preparation, Setup
from tuner.results.storage import pull, push


def arrived(preparation: Preparation) -> Preparation:
    """What the driver prepared, on this node: fetched once, however many workers ask."""
    folder = Path(preparation.folder)
    if storage_uri(folder) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / ".fetching").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            pull(folder)
    return preparation


def carry(report: Any) -> None:
    """Takes the adapter of a report to the store, before anybody hears of it."""
    if isinstance(report, Evaluation) and report.adapter:
        push(Path(report.adapter))


def carried(program: Any, preparation: Preparation, pushes: bool = True) -> Any:
    """The program, its trials' folders carried to the store after every step. pushes: not where another process of the
    trial does that."""
    return Carried(program, pushes) if storage_uri(Path(preparation.folder)) is not None else program


class Carried:
    """A program around another. What a trial leaves in its folder is in the store when its report goes out; a trial
    that was begun elsewhere finds its folder as it was left there."""

    def __init__(self, program: Any, pushes: bool = True) -> None:
        self._program, self._pushes = program, pushes
        self._folder = Path()
        self._seen: dict[Path, tuple[int, int]] = {}

    def start(self, assignment: Assignment) -> Setup:
        self._folder, self._seen = Path(assignment.folder), {}
        self._folder.mkdir(parents=True, exist_ok=True)
        for earlier in assignment.resume.folders if assignment.resume else ():
            pull(Path(earlier))
        return self._program.start(assignment)

    def step(self) -> Evaluation:
        evaluation = self._program.step()
        if self._pushes:
            push(self._folder, self._seen)
        return evaluation

    def stop(self) -> None:
        self._program.stop()

    def __getattr__(self, name: str) -> Any:
        """Whatever else a program can do."""
        return getattr(self._program, name)
