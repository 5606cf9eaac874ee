"""The log of a trial: what the libraries log in the process that trains it."""

from __future__ import annotations

import logging
from pathlib import Path

from tuner.redaction import LogFile


class TrialLog:
    """Writes what the libraries of this process log, and their warnings, into the log file of the trial that it
    runs."""

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None

    def open(self, path: Path) -> None:
        """Writes to this file from now on, and no longer to an earlier one."""
        self.close()
        logging.captureWarnings(True)
        path.parent.mkdir(parents=True, exist_ok=True)  # it may be another node than the driver's
        self._handler = LogFile(path)
        logging.getLogger().addHandler(self._handler)

    def close(self) -> None:
        """Stops writing. May be called twice."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._handler.close()
            self._handler = None
