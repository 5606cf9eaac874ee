"""The storage of a study: Optuna's journal in a file, written by one process, and a window on it for samplers.

Optuna's own file backend locks, opens, forces to the disk, closes and reads the file again for every line. That is
right for several writers and cost a toy trial of nine lines 12 ms. A search has one writer, whose run folder is locked,
and its truth is the ledger: a resume writes the journal anew. So a line is appended in one write that other programs
(optuna-dashboard) see at once, and nothing is read back.
"""

from __future__ import annotations

import json
from bisect import insort
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

BEST = 25
"""As many trials as TPE, past 250 finished ones, takes for good; Optuna's default gamma."""


class OneWriter(BaseJournalBackend):
    """A journal file begun anew at `path`, which may be renamed while it is written to."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._unread: deque[bytes] = deque()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes the lines of one operation in one go, so that a reader meets whole ones."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        data = b"".join(lines)
        while data:  # a disk that fills up takes a part without complaint
            data = data[self._file.write(data) :]
        self._unread.extend(lines)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """What was appended since the last call: nobody else writes. From its text, so that this process knows of a
        study exactly what another will read."""
        while self._unread:
            yield json.loads(self._unread.popleft())


class Window:
    """The trials that a sampler is shown: those that run, and of the finished at most `size`, the best and the newest.

    TPE sorts and weighs every finished trial anew for every suggestion, and has no setting against it. It splits them
    into the best 25 and the rest, and trusts the rest the less the older they are. The window keeps the best 25, in
    TPE's own order, and the newest of the rest: up to `size` finished trials a suggestion is the one that Optuna makes
    from all of them, and beyond that the good ones are still the same. Which trials are in it follows from the trials
    alone, so a resumed search has the same window. Failed trials, at which samplers do not look, take no room.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._best: list[tuple[tuple[float, float, float], int]] = []
        self._newest: list[int] = []
        self._kept: dict[int, FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Takes in a trial that has finished."""
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        self._kept[trial.number] = trial
        insort(self._best, (_rank(trial), trial.number))
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


def _rank(trial: FrozenTrial) -> tuple[float, float, float]:
    """TPE's order of finished trials: complete by value, pruned by how far and how well they came, infeasible last."""
    infeasible = sum(v for v in trial.constraints.values() if v > 0)
    if infeasible:
        return 2, infeasible, 0
    if trial.state is TrialState.COMPLETE:
        return 0, trial.value or 0.0, 0
    if not trial.intermediate_values:
        return 1, 1, 0
    step, value = max(trial.intermediate_values.items())
    return 1, -step, value


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
