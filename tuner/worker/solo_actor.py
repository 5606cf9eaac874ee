"""Trains an unpacked trial beside an engine: on the same GPU, with a base of its own."""

from __future__ import annotations

from typing import Any

from tuner.contract import Assignment, Evaluation, Preparation, Reason, Runner, Setup, Verdict
from tuner.failures import Failure, capture
from tuner.scheduling.wire import checked
from tuner.worker.config import ProgramSource
from tuner.worker.store_sync import arrived, synced


class SoloActor:
    """Runs the program for trials that cannot be packed, one at a time. Loads nothing before the first of them
    comes."""

    def __init__(self, program: ProgramSource, settings: dict[str, Any]) -> None:
        self._making = lambda preparation: synced(program.load()(settings, arrived(preparation)), preparation)
        self._program: Runner | None = None
        self._number: int | None = None
        self._attempt = 0
        self._closed = False

    def __repr__(self) -> str:
        return "unpacked beside an engine"

    def free(self) -> int:
        """1 where it takes a trial, else 0."""
        return int(self._number is None and not self._closed)

    def trials(self) -> list[tuple[int, int]]:
        """As `EngineActor.trials`."""
        return [] if self._number is None else [(self._number, self._attempt)]

    def close(self) -> list[tuple[int, int]]:
        """Takes no further trial. Returns `trials`."""
        self._closed = True
        return self.trials()

    def start(self, assignment: Assignment, preparation: Preparation) -> Setup | Evaluation | Failure | None:
        """Starts a trial; returns its set-up, or None where another one runs."""
        if self._number is not None or self._closed:
            return None
        self._number, self._attempt = assignment.number, assignment.attempt

        def begin() -> Setup | Evaluation:
            self._program = self._program or self._making(preparation)
            return checked(self._program.start(assignment))

        return capture(begin)

    def step(self, number: int) -> Setup | Evaluation | Failure:
        """The next evaluation of trial `number`."""
        program = self._program
        if program is None or self._number != number:  # it was in the process that died, whose place this one took
            return Failure(Verdict(Reason.INFRASTRUCTURE, "its process died"))
        return capture(lambda: checked(program.step()))

    def stop(self, number: int) -> Failure | None:
        """Ends trial `number`. Where that fails the next trial gets a new program."""
        if self._number != number:
            return None
        stopped = capture(self._program.stop) if self._program is not None else None
        if isinstance(stopped, Failure):
            self._program = None
        self._number = None
        return stopped
