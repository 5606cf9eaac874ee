"""The storage of a study: Optuna's journal file, which others may append to, and the trials that a sampler is shown.

Optuna's own file backend locks, opens, forces to the disk, closes and reads the file again for every line, which cost a
toy trial of nine lines 12 ms. The truth of a search is its ledger, and a resume writes the journal anew, so this one
does not call fsync, and reads only what others have appended.

What others append (a dashboard's notes, attributes, trials of a `study.optimize`) stays in the file, for everybody who
reads it and for the next session, and never reaches the search: its sampler sees its own trials alone. A journal knows
a trial by its place among all trials that were created in the file, so a trial that somebody else creates moves the
places of ours; `Journal` counts them and writes ours with the right places.
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
"""How many of 250 or more finished trials TPE takes as the good ones: Optuna's default gamma."""


class FileLock:
    """Optuna's own lock of a journal file, a symbolic link beside it, for a driver that must not stand still.

    `acquire` waits up to `WAIT_S` seconds the first time that somebody else holds it, and after that only tries once.
    Like Optuna it removes a lock that has been the same for `STALE_S` seconds: the process that made it died.
    """

    WAIT_S = 0.5
    STALE_S = 30.0

    def __init__(self, journal: Path) -> None:
        self._journal, self._place = str(journal), f"{journal}.lock"  # as text: a Path costs as much as the call
        self._met: tuple[int, int] | None = None
        """The lock of another process that was in the way last: its inode and its time in ns."""
        self._since = 0.0

    @property
    def is_taken(self) -> bool:
        """Whether anybody holds the lock."""
        return os.path.lexists(self._place)

    def acquire(self) -> bool:
        """Tries to take the lock; returns whether it is ours now."""
        deadline = time.monotonic() + (self.WAIT_S if self._met is None else 0.0)
        while True:
            try:
                os.symlink(self._journal, self._place)  # noqa: PTH211
            except FileExistsError:
                self._remove_stale()
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.002)
            else:
                self._met = None
                return True

    def release(self) -> None:
        """Gives the lock back."""
        with suppress(FileNotFoundError):  # another process took it for stale, and removed it
            os.unlink(self._place)  # noqa: PTH108

    def _remove_stale(self) -> None:
        """Removes the lock where it is stale."""
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
    """A new journal file at `path`. `publish` renames it to where others find it; from then on they may append.

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
        """Bytes of the file that this process has written or read."""

    def publish(self, path: Path, lock: FileLock) -> None:
        """Renames the file to `path`; from here on others may write to it."""
        self._path.replace(path)
        self._lock = lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes the lines of one operation in one call, so that a reader finds complete ones. Raises OSError."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        creates = any(log["op_code"] == JournalOperation.CREATE_TRIAL for log in logs)
        may_skip_lock = not self._waiting and not creates
        self._waiting.extend(lines)
        self.flush(may_skip_lock)
        self._unread.extend(lines)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """What this process appended since the last call, and nothing of anybody else's. It is parsed from the text, so
        that this process knows of a study exactly what another one will read."""
        while self._unread:
            yield json.loads(self._unread.popleft())

    def flush(self, may_skip_lock: bool = False) -> None:
        """Writes the lines that wait, if the lock can be had.

        may_skip_lock: the lines create no trial, so no place depends on them. They are written without the lock where
        nobody holds it and nobody else has written: the system appends them in one piece. To take the lock for each of
        nine lines would cost a trial 1.5 ms.
        """
        size = os.fstat(self._file.fileno()).st_size
        if self._lock is None or (may_skip_lock and size == self._end and not self._lock.is_taken):
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
        """Counts the lines that others appended between the check of the file's size and the write of `data`, where
        that was without the lock: they lie before `data`. begun: the size at the check, in bytes."""
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
        """Counts the lines that others have appended. A last line without its end is cut off: its writer died, and no
        line after it could be read."""
        size = os.fstat(self._file.fileno()).st_size
        if size <= self._end:
            self._end = size
            return
        others = os.pread(self._file.fileno(), size - self._end, self._end)
        complete = others[: others.rfind(b"\n") + 1]
        for line in complete.splitlines():
            self._places.others(line)
        self._end += len(complete)
        if len(complete) < len(others):
            self._file.truncate(self._end)


class Window:
    """The finished trials that a sampler is shown: at most `size`, the best ones and the newest ones.

    TPE sorts and weighs every finished trial again for every suggestion, and no setting limits that. It splits them
    into the best 25 and the rest, and gives the rest less weight the older they are. The window keeps the best 25, in
    TPE's own order, and the newest of the rest. Up to `size` finished trials a suggestion is therefore the one that
    Optuna makes from all of them; beyond that the best 25 are still the same. Which trials are in the window follows
    from the trials alone, so a resumed search has the same window. Failed trials, which samplers ignore, are left out.
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
    """TPE's order of finished trials: complete ones by value, then pruned ones by how far they came and by value, then
    infeasible ones."""
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
    """A journal storage that can show a sampler the trials of a window, and those that run, instead of all trials.

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
        """Inside this block the storage shows the window and the trials that run, and no other trial."""
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
