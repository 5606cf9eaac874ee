"""Whether a search is to stop while Ray runs it, and why: a signal, a person's request, a trial's verdict, or an
error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tuner.contract import Verdict
from tuner.driver.disk_guard import DiskGuard, DiskLost
from tuner.results.records import SearchRecord


class Stopping:
    """Whether a search is to stop, with the first verdict and the first error that end it.

    requested: whether a signal asks for it. deferred: makes a block that no signal interrupts.
    """

    def __init__(
        self,
        record: SearchRecord,
        disk: DiskGuard,
        requested: Callable[[], bool] = lambda: False,
        deferred: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._record, self._disk, self._requested, self._deferred = record, disk, requested, deferred
        self.halt: Verdict | None = None
        """The ending of a trial that every further trial would have too."""
        self.failure: Exception | None = None
        """An error that no trial is to blame for."""

    @property
    def now(self) -> bool:
        """Whether Ray should end the search now."""
        asked = self._requested() or bool(self._record.stopped)
        return asked or self.halt is not None or self.failure is not None

    def how(self, more: bool) -> str:
        """How the session ends, in a word. more: whether a trial is left for a resume."""
        if self.halt is not None or self.failure is not None:
            return "halted" if self.halt is not None else "failed"
        return "stopped" if self._record.stopped else "interrupted" if more else "done"

    def halt_with(self, verdict: Verdict | None) -> None:
        """Ends the search with a trial's verdict, unless that is None; the first verdict stays."""
        self.halt = self.halt or verdict

    def fail_with(self, error: Exception) -> None:
        """Ends the search with an error that no trial is to blame for; the first one stays."""
        self.failure = self.failure or error

    @contextmanager
    def on_disk(self) -> Iterator[None]:
        """Ends the search, and raises nothing, where the disk of the run fails in this block. A resume goes on
        later."""
        try:
            yield
        except (OSError, DiskLost) as error:
            lost = self._disk.lost(error)
            if lost is None:
                raise
            self.fail_with(lost)

    @contextmanager
    def undivided(self) -> Iterator[None]:
        """Defers a second Ctrl-C to the end of this block. A disk that fails in it ends the search, and no trial."""
        with self._deferred(), self.on_disk():
            yield
