"""The end of a session of a search: the best adapter, the last line of the ledger, the exit code.

Where a signal ends the session, the main thread may be in a call that does not return: Ray's own processes got the
signal as well, or a disk hangs. Another thread then writes the same end (`Ending.write_alone`).
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

from tuner.config import Experiment, Search
from tuner.contract import Card, InputError, Status, Verdict
from tuner.disks import is_full
from tuner.driver.disk_guard import DiskGuard, DiskLost
from tuner.driver.resolved_settings import fixed_experiment
from tuner.failures import Failure, capture
from tuner.results import storage
from tuner.results.adapters import checked_manifest, write_best
from tuner.results.budget import spent
from tuner.results.command_line import resume_command_line, run_command_line
from tuner.results.folder import RunFolder
from tuner.results.ledger import Kind, Ledger
from tuner.results.records import SearchRecord
from tuner.results.untrusted_read import read_object
from tuner.signals import StopSignals, exit_now
from tuner.streams import restore_streams

NOTHING_KEPT = "interrupted before the first trial: nothing was kept, and the same command begins again"
SLOW_S = 1.5
"""Seconds that the other thread waits for an end that the main thread is writing; it ends the process after twice that.
Files are copied under another name and renamed when they are complete, so an interrupted copy breaks nothing."""
SEIZE_S = 1.0
"""Seconds to wait for the ledger, to which the main thread may be writing a line; on a disk that hangs it stays
busy."""
INTERRUPTED = 130
"""The exit code after a Ctrl-C, and after the disk was lost: every report is kept, and a resume goes on."""


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    record: SearchRecord
    path: Path
    """The run folder."""
    exit_code: int
    """0 done, 1 no usable trial or halted, 3 done with failed trials, 128 + signal after a signal, `INTERRUPTED` where
    the disk of the run failed or its folder was moved."""
    signal: int | None = None
    """The number of the signal that ended it; None where none did."""
    trouble: str = ""
    """What could not be written at the end, and what to do; "" where all was."""
    nothing_left: bool = False
    """Whether a resume had nothing to do: nothing was started, and nothing written."""


class Ending:
    """Writes the end of a session once, in whichever thread comes first. show_outcome: shows an outcome to the user."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        record: SearchRecord,
        ledger: Ledger,
        mirror: storage.Mirror,
        disk: DiskGuard,
        signals: StopSignals,
        show_outcome: Callable[[Outcome], int] | None,
    ) -> None:
        self._experiment, self._folder, self._record = experiment, folder, record
        self._ledger, self._mirror, self._disk, self._signals = ledger, mirror, disk, signals
        self._show_outcome = show_outcome
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
        """Writes the end, and returns how the search ended. Does not return where the other thread was first: that one
        ends the process.

        halt: the verdict that ended the search. failure: the error that did. trouble: a sentence on what did, for an
        end that is neither. lost: the run folder cannot be written.
        """
        with self._writing:
            self._outcome = self._written(halt, failure, trouble) if lost is None else self._cut_off(lost)
            return self._outcome

    def write_alone(self, number: int) -> None:
        """Writes the same end in place of the main thread, which does not answer the signal `number`; ends the
        process."""
        last = f"interrupted; to go on: {resume_command_line(self._folder.path)}\n"
        limit = threading.Timer(2 * SLOW_S, exit_now, (number, last))  # a disk or a terminal may take no more writes
        limit.daemon = True
        limit.start()
        if not self._writing.acquire(timeout=SLOW_S):
            exit_now(number, last)
        outcome = self._outcome
        # The main thread may be in C++ code of Ray's, and then Python's signal handler has not run
        self._signals.first = self._signals.first or number
        try:
            if outcome is None and self._ledger.seize(SEIZE_S):
                for trial in self._record.running:
                    self._ledger.append(Kind.INTERRUPTED, trial=trial.trial, number=trial.number, attempt=trial.attempt)
                outcome = self._written(None, None, "")
        except Exception as error:  # whatever it is, a resume goes on from what is in the ledger
            trouble = f"the end could not be written ({type(error).__name__}: {error})"
            outcome = Outcome(self._record, self._folder.path, 128 + number, number, trouble)
        outcome = outcome or Outcome(self._record, self._folder.path, 128 + number, number)
        self._tell(outcome)
        exit_now(number, code=outcome.exit_code)

    def _tell(self, outcome: Outcome) -> None:
        """Shows the outcome as the main thread would, on the standard streams and not in the log."""
        if not outcome.record.trials:
            give_back(self._folder)
            exit_now(outcome.signal or 0, f"{NOTHING_KEPT}\n")
        if self._show_outcome is None:
            return
        restore_streams()
        with suppress(Exception):
            self._show_outcome(outcome)

    def _written(self, halt: Verdict | None, failure: Exception | None, trouble: str) -> Outcome:
        record, stopped = self._record, self._signals.first
        self._disk.open = False  # signals are muted by now: nobody could end a wait for room
        code = exit_code(record, halt, stopped)
        if stopped is not None:
            trouble = ""  # Ray may have been told to end as well: that is no news
        elif trouble:
            code = 1
        try:
            if failure is None or len(record.ended) > self._ended_before:  # else best/ stays as it was
                self._keep_best()
            self._write_finished(halt, failure, code)
        except Exception as error:
            return self._unwritten(error, code, _cause(halt, failure, trouble))
        return Outcome(record, self._folder.path, code, stopped, trouble)

    def _unwritten(self, error: Exception, code: int, cause: str) -> Outcome:
        """The outcome where `error` kept the end from being written. cause: what had ended the search, "" for nothing;
        it is told first, because the error is only what followed from it or came beside it.

        Raises `error` where it is a fault of the tuner's and there is nothing that it could hide.
        """
        stopped, resume = self._signals.first, resume_command_line(self._folder.path)
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
        """Ends a session whose run folder cannot be written, or was moved: the ledger gets its last line if it can be
        written, and a resume writes the rest."""
        stopped = self._signals.first
        code = INTERRUPTED if stopped is None else 128 + stopped
        self._disk.open = False
        details = {"outcome": "interrupted", "message": lost.told, "remedy": "", "exit_code": code}
        with suppress(OSError):
            self._ledger.append(Kind.FINISHED, details=details)
        return Outcome(self._record, lost.place, code, stopped, lost.trouble)

    def _keep_best(self) -> None:
        """Writes `best/`, if there is a best trial."""
        best = self._record.best
        if best is None:
            return
        self._mirror.fetch(best.adapter)
        resolved = read_object(self._folder.resolved)
        train = fixed_experiment(self._experiment, best.params, self._record.facts)
        card = self._card(best.setup)
        try:
            written = write_best(self._folder, self._record, train=train, resolved=resolved, card=card)
            text = "is not where it was saved"
        except InputError as damaged:
            written, text = None, f"is damaged ({damaged.where} is not what the trial wrote)"
        if written is None:
            text = f"the adapter of trial {best.number} {text}: {self._stays(best.number)}"
            self._ledger.append(Kind.NOTE, details={"text": text})

    def _stays(self, number: int) -> str:
        """What `best/` is where that trial's adapter could not be written as it."""
        again = run_command_line(self._folder.path, "train", self._folder.name, "--trial", str(number))
        try:
            kept = checked_manifest(self._folder.best)["trial"]
        except (InputError, OSError, KeyError):
            return f"there is no best/, and this trains it again: {again}"
        return "best/ is a whole copy of it" if kept == number else f"best/ stays trial {kept}'s; again: {again}"

    def _card(self, setup: Mapping[str, Any]) -> Card | None:
        """The program's part of the model card. Where that fails the adapter is kept without it."""
        card = capture(lambda: self._experiment.program_class.card(self._experiment.settings, setup))
        if not isinstance(card, Failure):
            return card
        logging.getLogger(__name__).error("the program's part of the model card: %s", card.traceback)
        text = f"the program's part of the model card is missing: {card.verdict.message}"
        self._ledger.append(Kind.NOTE, details={"text": text})
        return None

    def _write_finished(self, halt: Verdict | None, failure: Exception | None, code: int) -> None:
        self._ledger.append(
            Kind.FINISHED,
            reason=str(halt.reason) if halt else None,
            details={
                "outcome": _outcome(self._record, halt, failure, self._signals.first),
                "message": halt.message if halt else str(failure or ""),
                "remedy": halt.remedy if halt else "",
                "exit_code": code,
            },
        )


def _cause(halt: Verdict | None, failure: Exception | None, trouble: str) -> str:
    """What ended a search, in words; "" where nothing did."""
    if halt is not None:
        return f"{halt.message or halt.reason}" + (f"\n  try: {halt.remedy}" if halt.remedy else "")
    return str(failure) if failure is not None else trouble


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))


def give_back(folder: RunFolder) -> None:
    """Removes a run folder in which no trial has begun, so that its name is free again."""
    try:
        if folder.record().trials:
            return
    except InputError:
        return
    shutil.rmtree(folder.path, ignore_errors=True)
    storage.forget(folder.path)


def nothing_left(folder: RunFolder, record: SearchRecord, search: Search) -> Outcome | None:
    """The outcome of a search that a resume has nothing to do for: no trial is left, or its budget is spent, and
    `best/` is as it was written. None where there is something to do. search: what the resume is asked for."""
    over = record.is_done and search.num_trials == record.num_trials
    if not over and not (record.finished and record.spent and spent(record, search.budget)):
        return None
    if record.best is not None:
        try:
            if checked_manifest(folder.best).get("trial") != record.best.number:
                return None
        except InputError:  # a resume writes it anew
            return None
    return Outcome(record, folder.path, exit_code(record, None, None), nothing_left=True)


def exit_code(record: SearchRecord, halt: Verdict | None, stopped: int | None) -> int:
    """The exit code of a search: 0 done, 1 no usable trial or halted, 3 done with failed trials, 128 + signal."""
    if stopped is not None:
        return 128 + stopped
    if halt is not None or record.best is None:
        return 1
    failed = any(t.status is Status.FAILED for t in record.ended)
    return 3 if failed else 0


def _outcome(record: SearchRecord, halt: Verdict | None, failure: Exception | None, signal: int | None) -> str:
    if signal is None and (halt or failure):
        return "halted" if halt else "failed"
    if signal is None and record.stopped:
        return "stopped"
    return "interrupted" if signal is not None or record.cut_off or record.parked else "done"
