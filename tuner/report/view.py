"""The base class of the views of a running search."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import IO

from tuner.results.records import SearchRecord


class View:
    """A listener that shows a search on a stream, and a context manager around it."""

    def __init__(
        self,
        labels: Mapping[str, str] | None = None,
        stream: IO[str] | None = None,
        record: SearchRecord | None = None,
    ) -> None:
        """labels: short column headings by parameter name. stream: standard error by default. record: of the earlier
        sessions, for a search that is resumed."""
        self._labels = labels
        self._stream = stream or sys.stderr
        self._record = record or SearchRecord()
        self._lock = threading.Lock()
