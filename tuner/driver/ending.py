"""The end of a session of a search: the best adapter, the last line of the ledger, the exit code.

Where a signal ends it the main thread may stand in a call that does not return: Ray's own processes were told as well,
or a disk hangs. Another thread then writes the same end (`Ending.write_alone`).
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.config import Experiment
from tuner.contract import Card, InputError, Status, Verdict
from tuner.disks import is_full
from tuner.driver.disk_guard import DiskGuard, DiskLost
from tuner.driver.resolved_settings import fixed_experiment
from tuner.failures import Failure, capture
from tuner.results import storage
from tuner.results.adapters import write_best
from tuner.results.command_line import resume_command_line
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.results.untrusted_read import read_object
from tuner.signals import StopSignals, leave
from tuner.streams import straighten

NOTHING_KEPT = "interrupted before the first trial: nothing was kept, and the same command begins again"
SLOW_S = 1.5
"""Longer, for an end that is being written, and as long again to write it here. What is copied is renamed when it is
whole: leaving it leaves nothing broken."""
SEIZE_S = 1.0
"""For the ledger, where a line is just being written to it; a disk that hangs does not give it."""


INTERRUPTED = 130
"""As after a Ctrl-C: the search was cut off from outside, every report is kept, and a resume goes on."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended. exit_code: 0 done, 1 no usable trial or halted, 3 done with failed trials, 128 + signal
    after a signal, `INTERRUPTED` where the disk of the run failed or its folder was moved. path: the run folder.
    trouble: what could not be written at the end, and what to do."""

    record: SearchRecord
    path: Path
    exit_code: int
    signal: int | None = None
    trouble: str = ""


class Ending:
    """Writes the end of a session once, whichever thread comes first. leaving: tells an outcome."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        record: SearchRecord,
        ledger: Ledger,
        mirror: storage.Mirror,
        disk: DiskGuard,
        signals: StopSignals,
        leaving: Callable[[Outcome], int] | None,
    ) -> None:
        self._experiment, self._folder, self._record = experiment, folder, record
        self._ledger, self._mirror, self._disk, self._signals = ledger, mirror, disk, signals
        self._leaving = leaving
        self._ended_before = len(record.ended)
        self._writing = threading.Lock()
        self._outcome: Outcome | None = None

    def write(
        self,
        halt: Verdict | None = None,
        failure: Exception | None = None,
        trouble: str = "",
        lost: DiskLost | None = None,
    ) -> Outcome:
        """Writes it, and says how the search ended. Does not return where the other thread was first: that one ends
        the process."""
        with self._writing:
            self._outcome = self._written(halt, failure, trouble) if lost is None else self._cut_off(lost)
            return self._outcome

    def write_alone(self, number: int) -> None:
        """The same in place of the main thread, which does not answer the signal `number`; ends the process."""
        last = f"interrupted; to go on: {resume_command_line(self._folder.path)}\n"
        limit = threading.Timer(2 * SLOW_S, leave, (number, last))  # a disk or a terminal may take no more writes
        limit.daemon = True
        limit.start()
        if not self._writing.acquire(timeout=SLOW_S):
            leave(number, last)
        outcome = self._outcome
        # Where Ray stands still, the main thread stands in its C++ code, and Python's handler has not run
        self._signals.number = self._signals.number or number
        try:
            if outcome is None and self._ledger.seize(SEIZE_S):
                for trial in self._record.running:
                    self._ledger.append(Kind.INTERRUPTED, trial=trial.trial, number=trial.number, attempt=trial.attempt)
                outcome = self._written(None, None, "")
        except Exception as error:  # whatever keeps the end from being written: a resume finds what there is
            trouble = f"the end could not be written ({type(error).__name__}: {error})"
            outcome = Outcome(self._record, self._folder.path, 128 + number, number, trouble)
        outcome = outcome or Outcome(self._record, self._folder.path, 128 + number, number)
        self._tell(outcome)
        leave(number, code=outcome.exit_code)

    def _tell(self, outcome: Outcome) -> None:
        """Like the main thread after its last line, with the outputs as they were before they went to a log."""
        if not outcome.record.trials:
            give_back(self._folder)
            leave(outcome.signal or 0, f"{NOTHING_KEPT}\n")
        if self._leaving is None:
            return
        straighten()
        with suppress(Exception):
            self._leaving(outcome)

    def _written(self, halt: Verdict | None, failure: Exception | None, trouble: str) -> Outcome:
        record, stopped = self._record, self._signals.number
        self._disk.open = False  # signals are muted by now: nobody could end a wait for room
        code = exit_code(record, halt, stopped)
        if stopped is not None:
            trouble = ""  # Ray may have been told to end as well: that is no news
        elif trouble:
            code = 1
        try:
            if failure is None or len(record.ended) > self._ended_before:  # else it stays what it was
                self._keep_best()
            self._close_books(halt, failure, code)
        except Exception as error:
            return self._unwritten(error, code, _cause(halt, failure, trouble))
        return Outcome(record, self._folder.path, code, stopped, trouble)

    def _unwritten(self, error: Exception, code: int, cause: str) -> Outcome:
        """The outcome where `error` kept the end from being written. cause: what had ended the search, "" for nothing;
        it is told first, because the error is only what followed from it or came beside it.

        Raises `error` where it is a fault of the tuner's and there is nothing that it could hide.
        """
        stopped, resume = self._signals.number, resume_command_line(self._folder.path)
        if isinstance(error, OSError) and (lost := self._disk.lost(error)) is not None:
            outcome = self._cut_off(lost)
            return replace(outcome, trouble=_lines(cause, outcome.trouble))
        if is_full(error):
            told = (
                f"no room on the disk of {self._folder.path}: the end could not be written, every report before it is "
                f"kept\n  try: make room; this writes what is missing: {resume}"
            )
        elif cause or stopped is not None:
            logging.getLogger(__name__).error("the end could not be written", exc_info=error)
            why = " ".join(f"{type(error).__name__}: {error}".split())
            told = f"the end could not be written ({why}), every report before it is kept\n  try: {resume}"
        else:
            raise error
        return Outcome(self._record, self._folder.path, code or 1, stopped, _lines(cause, told))

    def _cut_off(self, lost: DiskLost) -> Outcome:
        """The end where the run folder cannot be written, or is elsewhere: what can still be said is, and a resume
        writes the rest."""
        stopped = self._signals.number
        code = INTERRUPTED if stopped is None else 128 + stopped
        self._disk.open = False
        details = {"outcome": "interrupted", "message": lost.told, "remedy": "", "exit_code": code}
        with suppress(OSError):
            self._ledger.append(Kind.FINISHED, details=details)
        return Outcome(self._record, lost.place, code, stopped, lost.trouble)

    def _keep_best(self) -> None:
        best = self._record.best
        if best is None:
            return
        self._mirror.fetch(best.adapter)
        resolved = read_object(self._folder.resolved)
        train = fixed_experiment(self._experiment, best.params, self._record.facts)
        card = self._card(best.setup)
        if write_best(self._folder, self._record, train=train, resolved=resolved, card=card) is None:
            text = f"the adapter of trial {best.number} is not where it was saved: there is no best/"
            self._ledger.append(Kind.NOTE, details={"text": text})

    def _card(self, setup: Mapping[str, Any]) -> Card | None:
        """The program's part of the model card. Where that fails the adapter is kept without it."""
        card = capture(lambda: self._experiment.program_class.card(self._experiment.settings, setup))
        if not isinstance(card, Failure):
            return card
        logging.getLogger(__name__).error("the program's part of the model card: %s", card.traceback)
        text = f"the program's part of the model card is missing: {card.verdict.message}"
        self._ledger.append(Kind.NOTE, details={"text": text})
        return None

    def _close_books(self, halt: Verdict | None, failure: Exception | None, code: int) -> None:
        self._ledger.append(
            Kind.FINISHED,
            reason=str(halt.reason) if halt else None,
            details={
                "outcome": _outcome(self._record, halt, failure, self._signals.number),
                "message": halt.message if halt else str(failure or ""),
                "remedy": halt.remedy if halt else "",
                "exit_code": code,
            },
        )


def _cause(halt: Verdict | None, failure: Exception | None, trouble: str) -> str:
    """What ended a search, in words."""
    if halt is not None:
        return f"{halt.message or halt.reason}" + (f"\n  try: {halt.remedy}" if halt.remedy else "")
    return str(failure) if failure is not None else trouble


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))


def give_back(folder: RunFolder) -> None:
    """Where nothing has run, the name of a search is free again."""
    try:
        if folder.record().trials:
            return
    except InputError:
        return
    shutil.rmtree(folder.path, ignore_errors=True)
    storage.forget(folder.path)


def exit_code(record: SearchRecord, halt: Verdict | None, stopped: int | None) -> int:
    """0 done, 1 no usable trial or a set-up fault, 3 done with failed trials, 128 + signal."""
    if stopped is not None:
        return 128 + stopped
    if halt is not None or record.best is None:
        return 1
    failed = any(t.status is Status.FAILED for t in record.ended)
    return 3 if failed else 0


def _outcome(record: SearchRecord, halt: Verdict | None, failure: Exception | None, signal: int | None) -> str:
    if signal is None and (halt or failure):
        return "halted" if halt else "failed"
    if signal is not None or record.cut_off or record.parked:
        return "interrupted"
    return "stopped" if record.stopped else "done"
