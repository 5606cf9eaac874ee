"""The live view in a notebook: one output of its cell, which is replaced while the search runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tuner.report.lines import plain
from tuner.report.live import LiveView
from tuner.results.ledger import Event

EVERY_S = 0.5
"""Seconds between two pictures: each is a message to the browser."""
_COLUMNS, _ROWS = 100, 40


def in_notebook(modules: Mapping[str, Any]) -> bool:
    """Whether this process is the kernel of a notebook. modules: sys.modules; IPython is not imported for it."""
    ipython = modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookView(LiveView):
    """A listener that keeps the output of a cell up to date; use it as a context manager around the search. The last
    picture stays."""

    _handle: Any = None
    _shown_at = 0.0

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if time.monotonic() - self._shown_at >= EVERY_S:
            self._show()

    def say(self, doing: str) -> None:
        """Shows what happens now and is no event."""
        super().say(doing)
        self._show()

    def count(self, doing: str) -> None:
        """Shows how far something is that takes long."""
        super().say(doing)
        if time.monotonic() - self._shown_at >= EVERY_S:
            self._show()

    def __enter__(self) -> NotebookView:
        from IPython.display import display

        self._handle = display(self._bundle(), raw=True, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        if self._handle is not None:
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        with self._lock:
            return {"text/plain": plain(self.picture(_COLUMNS, _ROWS))}
