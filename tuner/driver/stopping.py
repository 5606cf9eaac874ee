"""Why a search is to stop while Ray runs it: a signal, a person's request, a trial's verdict on it, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tuner.contract import Verdict
from tuner.driver.disk_guard import DiskGuard, DiskLost
from tuner.results.records import SearchRecord


class Stopping:
    """Whether a search is to stop, and the first reason that it has of its own.

    requested: whether a signal asks for it. deferred: enters a block that no signal may interrupt.
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
        """The ending of a trial that every further one would meet too."""
        self.failure: Exception | None = None
        """An error that no trial is to blame for."""

    @property
    def now(self) -> bool:
        """Whether Ray should end the search now."""
        asked = self._requested() or bool(self._record.stopped)
        return asked or self.halt is not None or self.failure is not None

    def halt_with(self, verdict: Verdict | None) -> None:
        """Ends the search for what a trial met, if that is one; the first such verdict stays."""
        self.halt = self.halt or verdict

    def fail_with(self, error: Exception) -> None:
        """Ends the search with an error that no trial is to blame for; the first one stays."""
        self.failure = self.failure or error

    @contextmanager
    def on_disk(self) -> Iterator[None]:
        """Where the disk of the run fails in here, the search ends, and a resume goes on from what is written."""
        try:
            yield
        except (OSError, DiskLost) as error:
            lost = self._disk.lost(error)
            if lost is None:
                raise
            self.fail_with(lost)

    @contextmanager
    def undivided(self) -> Iterator[None]:
        """A second Ctrl-C comes before or after what is in here, never in between; a disk that fails ends the search,
        and no trial."""
        with self._deferred(), self.on_disk():
            yield
