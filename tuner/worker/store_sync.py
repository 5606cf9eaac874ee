"""What a node of a cluster does where runs are kept in an object store: rows come, adapters go.

Everywhere else these functions do nothing: the run folder is the same on every node.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

from tuner.config.paths import storage_uri
from tuner.contract import CHECKPOINT_REQUEST, STATE, Assignment, Evaluation, Preparation, Runner, Setup
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


def request_checkpoint(folder: Path) -> None:
    """Leaves the sign in an attempt's folder that it is to keep a state with its next evaluation."""
    sign = folder / STATE / CHECKPOINT_REQUEST
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.touch()


class AttemptSync:
    """An attempt's folder on the node that works on it. Where runs are in an object store, it finds the folders of
    earlier attempts as they were left there, and takes along what the attempt leaves in its own."""

    def __init__(self, assignment: Assignment) -> None:
        self.attempt = assignment.attempt
        self._folder = Path(assignment.folder)
        self._folder.mkdir(parents=True, exist_ok=True)  # on another node than the driver's
        self._seen: dict[Path, tuple[int, int]] = {}
        for earlier in assignment.resume.folders if assignment.resume else ():
            pull(Path(earlier))

    def hurry(self) -> None:
        """Has the program keep a state with its next evaluation: this node is about to go."""
        request_checkpoint(self._folder)

    def send(self) -> None:
        """Brings what is new to the store: called before anybody hears of the report that it belongs to."""
        push(self._folder, self._seen)


def synced(program: Runner, preparation: Preparation, pushes: bool = True) -> Runner:
    """The program, its trials' folders carried to the store after every step. pushes: not where another process of the
    trial does that."""
    return SyncedProgram(program, pushes) if storage_uri(Path(preparation.folder)) is not None else program


class SyncedProgram:
    """A program around another, with the sync of its trials."""

    def __init__(self, program: Runner, pushes: bool = True) -> None:
        self._program, self._pushes = program, pushes
        self._syncs: AttemptSync | None = None

    def start(self, assignment: Assignment) -> Setup:
        self._syncs = AttemptSync(assignment)
        return self._program.start(assignment)

    def step(self) -> Evaluation:
        evaluation = self._program.step()
        assert self._syncs is not None
        if self._pushes:
            self._syncs.send()
        return evaluation

    def stop(self) -> None:
        self._program.stop()
