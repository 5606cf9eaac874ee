"""The storage of a study: Optuna's journal in a file that others may append to, and a window on it for samplers.

Optuna's own file backend locks, opens, forces to the disk, closes and reads the file again for every line, which cost a
toy trial of nine lines 12 ms. The truth of a search is its ledger, and a resume writes the journal anew, so this one
forces nothing and reads back only where the file has grown by itself.

What others append (a dashboard's notes, attributes, trials of a `study.optimize`) stays in the file, for everybody who
reads it and for the next session, and never reaches the search: its sampler sees its own trials alone. A journal knows
a trial by its place among all that were created in the file, so a trial of somebody else's moves the places of ours;
`Journal` counts along and writes ours under the right ones.
"""

from __future__ import annotations

import json
import os
import time
from bisect import insort
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from tuner.contract import EVAL_LOSS, Objective
from tuner.results.journal_check import Places

BEST = 25
"""As many trials as TPE, past 250 finished ones, takes for good; Optuna's default gamma."""


class FileLock:
    """Optuna's own lock of a journal file, a symbolic link beside it, for a driver that must not stand still.

    `acquire` waits `WAIT_S` once for whoever holds it, and then only looks. Like Optuna it takes a lock away that has
    been the same for `STALE_S`: its process died.
    """

    WAIT_S = 0.5
    STALE_S = 30.0

    def __init__(self, journal: Path) -> None:
        self._journal, self._place = str(journal), f"{journal}.lock"  # as text: a Path costs as much as the call
        self._met: tuple[int, int] | None = None
        """The lock of somebody else's that was in the way last: its inode and its time."""
        self._since = 0.0

    @property
    def is_taken(self) -> bool:
        return os.path.lexists(self._place)

    def acquire(self) -> bool:
        """Whether the lock is ours now."""
        deadline = time.monotonic() + (self.WAIT_S if self._met is None else 0.0)
        while True:
            try:
                os.symlink(self._journal, self._place)  # noqa: PTH211
            except FileExistsError:
                self._look()
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.002)
            else:
                self._met = None
                return True

    def release(self) -> None:
        with suppress(FileNotFoundError):  # taken away: we were slower than others' patience
            os.unlink(self._place)  # noqa: PTH108

    def _look(self) -> None:
        """Takes a stale lock away."""
        try:
            about = os.lstat(self._place)
            met = about.st_ino, about.st_mtime_ns
            if met != self._met:
                self._met, self._since = met, time.monotonic()
            elif time.monotonic() - self._since > self.STALE_S:
                os.unlink(self._place)  # noqa: PTH108
        except FileNotFoundError:
            return
        except OSError:  # a folder in its place, say: the file goes without our lines, which are in the ledger
            return


class Journal(BaseJournalBackend):
    """A journal file begun anew at `path`. `publish` renames it to where others find it; from then on they may append.

    While somebody holds the lock, lines wait in memory for the next call.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        path.unlink(missing_ok=True)
        self._path, self._file = path, os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0)
        self._lock: FileLock | None = None
        self._unread: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._places = Places()
        self._end = 0
        """Of what is known of the file."""

    def publish(self, path: Path, lock: FileLock) -> None:
        """Renames the file to `path`; from here on others are reckoned with."""
        self._path.replace(path)
        self._lock = lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes the lines of one operation in one go, so that a reader meets whole ones. Raises OSError."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        alone = not self._waiting and not any(log["op_code"] == JournalOperation.CREATE_TRIAL for log in logs)
        self._waiting.extend(lines)
        self.flush(alone)
        self._unread.extend(lines)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """What was appended here since the last call, and nothing of anybody else's. From its text, so that this
        process knows of a study exactly what another will read."""
        while self._unread:
            yield json.loads(self._unread.popleft())

    def flush(self, alone: bool = False) -> None:
        """Writes what waits, if the lock can be had. alone: it gives no trial its place. Such lines go without while
        nobody holds the lock and nobody has written: the system appends them in one piece. To take it for each of nine
        lines costs a trial 1.5 ms."""
        size = os.fstat(self._file.fileno()).st_size
        if self._lock is None or (alone and size == self._end and not self._lock.is_taken):
            self._write()
        elif self._waiting and self._lock.acquire():
            try:
                self._catch_up()
                self._write()
            finally:
                self._lock.release()

    def _write(self) -> None:
        left = data = b"".join(filter(None, map(self._places.ours, self._waiting)))
        begun = self._end
        self._waiting.clear()
        try:
            while left:  # a disk that fills up takes a part without complaint
                written = self._file.write(left) or 0
                self._end, left = self._end + written, left[written:]
            self._catch_up_around(begun, data)
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise

    def _catch_up_around(self, begun: int, data: bytes) -> None:
        """Takes note of lines that came between a look at the file and the writing of `data` without the lock: they lie
        before it. begun: the end of the file at the look."""
        size = os.fstat(self._file.fileno()).st_size
        if size == self._end or not data:
            return
        grown = os.pread(self._file.fileno(), size - begun, begun)
        before, ours, _ = grown.partition(data)
        if ours:
            for line in before.splitlines():
                self._places.others(line)
            self._end = begun + len(before) + len(data)

    def _catch_up(self) -> None:
        """Takes note of what others have appended. A last line without its end is of somebody who died in it: behind
        it no line could be read any more."""
        size = os.fstat(self._file.fileno()).st_size
        if size <= self._end:
            self._end = size
            return
        others = os.pread(self._file.fileno(), size - self._end, self._end)
        whole = others[: others.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._places.others(line)
        self._end += len(whole)
        if len(whole) < len(others):
            self._file.truncate(self._end)


class Window:
    """The trials that a sampler is shown: those that run, and of the finished at most `size`, the best and the newest.

    TPE sorts and weighs every finished trial anew for every suggestion, and has no setting against it. It splits them
    into the best 25 and the rest, and trusts the rest the less the older they are. The window keeps the best 25, in
    TPE's own order, and the newest of the rest: up to `size` finished trials a suggestion is the one that Optuna makes
    from all of them, and beyond that the good ones are still the same. Which trials are in it follows from the trials
    alone, so a resumed search has the same window. Failed trials, at which samplers do not look, take no room.
    """

    def __init__(self, size: int, objective: Objective = EVAL_LOSS) -> None:
        self._size, self._objective = size, objective
        self._best: list[tuple[tuple[float, float, float], int]] = []
        self._newest: list[int] = []
        self._kept: dict[int, FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Takes in a trial that has finished."""
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        self._kept[trial.number] = trial
        insort(self._best, (_rank(trial, self._objective), trial.number))
        insort(self._newest, trial.number)
        del self._best[BEST:]
        del self._newest[: -self._size]
        if len(self._kept) > 2 * (self._size + BEST):
            numbers = {*self._newest, *(number for _, number in self._best)}
            self._kept = {number: t for number, t in self._kept.items() if number in numbers}

    def trials(self) -> list[FrozenTrial]:
        """The finished ones, by number."""
        best = {number for _, number in self._best}
        rest = [number for number in self._newest if number not in best]
        room = max(0, self._size - len(best))
        return [self._kept[number] for number in sorted([*best, *rest[len(rest) - room :]])]


def _rank(trial: FrozenTrial, objective: Objective) -> tuple[float, float, float]:
    """TPE's order of finished trials: complete by value, pruned by how far and how well they came, infeasible last."""
    infeasible = sum(v for v in trial.constraints.values() if v > 0)
    if infeasible:
        return 2, infeasible, 0
    if trial.state is TrialState.COMPLETE:
        return 0, objective.cost(trial.value or 0.0), 0
    if not trial.intermediate_values:
        return 1, 1, 0
    step, value = max(trial.intermediate_values.items())
    return 1, -step, objective.cost(value)


class Storage(JournalStorage):
    """A journal that can show a sampler a window instead of all trials.

    window: None for samplers that need to see everything.
    """

    def __init__(self, backend: BaseJournalBackend, window: Window | None = None) -> None:
        super().__init__(backend)
        self._window = window
        self._open: set[int] = set()
        self._narrow = False

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._note(trial_id)
        return trial_id

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        self._note(trial_id)
        return done

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if not self._narrow or self._window is None:
            return super().get_all_trials(study_id, deepcopy, states)
        trials: Iterable[FrozenTrial] = [*self._window.trials(), *map(self.get_trial, sorted(self._open))]
        return [t for t in trials if states is None or t.state in states]

    @contextmanager
    def narrowed(self) -> Iterator[None]:
        """While this is entered, only the window is shown."""
        self._narrow = True
        try:
            yield
        finally:
            self._narrow = False

    def _note(self, trial_id: int) -> None:
        trial = self.get_trial(trial_id)
        if not trial.state.is_finished():
            self._open.add(trial_id)
            return
        self._open.discard(trial_id)
        if self._window is not None:
            self._window.add(trial)
