"""What an evaluation leaves on disk, written by threads while the engine trains on.

One after another and in the engine's own thread, the adapters of 16 trials on a 7B base were 10 s for each 5 s of
training (H200, 20 steps between evaluations). Nobody hears of an evaluation before its files are whole.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from trainables.packed.packed_trial import Slot
from tuner.contract import Evaluation

Job = Callable[[], Evaluation]
"""Writes, and gives the evaluation that may be told then."""


class Writer:
    """Jobs under way, at most one a trial. threads: so many at once; what waits holds its tensors on the host."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "writer")
        self._jobs: dict[Slot, Future[Evaluation]] = {}

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def write(self, trial: Slot, job: Job) -> None:
        """Begins as soon as a thread is free."""
        self._jobs[trial] = self._pool.submit(job)

    def written(self, *, waits: bool = False) -> list[tuple[int, Evaluation]]:
        """Slots whose files are on disk since the last call; with `waits` at least one of those under way. Raises what
        the job raised."""
        if waits:
            wait(self._jobs.values(), return_when=FIRST_COMPLETED)
        done = [trial for trial, job in self._jobs.items() if job.done()]
        return [(trial.number, self._jobs.pop(trial).result()) for trial in done]

    def drop(self, trial: Slot) -> None:
        """Nobody waits for this one any more. After it nothing is written to the trial's folder."""
        job = self._jobs.pop(trial, None)
        if job is not None and not job.cancel():
            wait([job])
