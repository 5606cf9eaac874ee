"""Copies files between a node and an object store, where runs are kept in one: data to the node, adapters from it.

Where runs are kept on a shared file system nothing is copied: the run folder is the same on every node.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

from tuner.config.paths import storage_uri
from tuner.contract import CHECKPOINT_REQUEST, STATE, Assignment, Evaluation, Preparation, Runner, Setup
from tuner.results.storage import pull, push


def arrived(preparation: Preparation) -> Preparation:
    """Makes the prepared data present on this node, fetched once however many workers call, and returns
    `preparation`."""
    folder = Path(preparation.folder)
    if storage_uri(folder) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / ".fetching").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            pull(folder)
    return preparation


def request_checkpoint(folder: Path) -> None:
    """Creates the file in an attempt's folder that asks it to save a state with its next evaluation."""
    request = folder / STATE / CHECKPOINT_REQUEST
    request.parent.mkdir(parents=True, exist_ok=True)
    request.touch()


class AttemptSync:
    """Makes an attempt's folder on the node that trains it. Where runs are in an object store, fetches the folders of
    earlier attempts from there, and `send` copies this attempt's folder to it."""

    def __init__(self, assignment: Assignment) -> None:
        self.attempt = assignment.attempt
        self._folder = Path(assignment.folder)
        self._folder.mkdir(parents=True, exist_ok=True)  # on another node than the driver's
        self._seen: dict[Path, tuple[int, int]] = {}
        for earlier in assignment.resume.folders if assignment.resume else ():
            pull(Path(earlier))

    def request_checkpoint(self) -> None:
        """Asks the program to save a state with its next evaluation: this node is about to go."""
        request_checkpoint(self._folder)

    def send(self) -> None:
        """Copies new and changed files to the store. Called before the report that they belong to is sent."""
        push(self._folder, self._seen)


def synced(program: Runner, preparation: Preparation, pushes: bool = True) -> Runner:
    """The program, wrapped where runs are in an object store: each trial's folder is copied there after every step.
    pushes: False where another process of the trial does that."""
    return SyncedProgram(program, pushes) if storage_uri(Path(preparation.folder)) is not None else program


class SyncedProgram:
    """Wraps a program: copies its trials' folders to and from the object store."""

    def __init__(self, program: Runner, pushes: bool = True) -> None:
        self._program, self._pushes = program, pushes
        self._sync: AttemptSync | None = None

    def start(self, assignment: Assignment) -> Setup:
        self._sync = AttemptSync(assignment)
        return self._program.start(assignment)

    def step(self) -> Evaluation:
        evaluation = self._program.step()
        assert self._sync is not None
        if self._pushes:
            self._sync.send()
        return evaluation

    def stop(self) -> None:
        self._program.stop()
