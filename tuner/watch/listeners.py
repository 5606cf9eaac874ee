"""Passes the events of a search on to listeners. If one of them raises, the search goes on without it.

A listener must not wait for anything outside of this process. Streams and trackers have threads for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tuner.results.ledger import Event
from tuner.streams import note


class Dropped:
    """Calls a function until it raises for the first time. Then it writes the error into the run's log, and calls the
    function no more.

    what: names the call in the log. Signals (`StopRequested`, KeyboardInterrupt) are not caught.
    """

    def __init__(self, what: str, call: Callable[..., None]) -> None:
        self._what = what
        self._call: Callable[..., None] | None = call

    def __call__(self, *arguments: Any) -> None:
        if self._call is None:
            return
        try:
            self._call(*arguments)
        except Exception as error:
            self._call = None
            note(f"{self._what} failed, and the search goes on without: {type(error).__name__}: {error}")


class Listeners:
    """A listener of the ledger that calls others, each until it raises."""

    def __init__(self, listeners: Iterable[Callable[[Event], None]] = ()) -> None:
        self._tells: list[Dropped] = []
        self._says: list[Dropped] = []
        self._counts: list[Dropped] = []
        for listener in listeners:
            self.add(listener)

    def add(self, listener: Callable[[Event], None]) -> None:
        """Adds a listener; its methods `say` and `count`, if it has them, get the texts of `say` and `tell`."""
        name = type(listener).__name__
        self._tells.append(Dropped(f"the listener {name}", listener))
        if (say := getattr(listener, "say", None)) is not None:
            self._says.append(Dropped(f"what {name} says", say))
        if (count := getattr(listener, "count", None)) is not None:
            self._counts.append(Dropped(f"what {name} counts", count))

    def __call__(self, event: Event) -> None:
        for tell in self._tells:
            tell(event)

    def say(self, text: str) -> None:
        """Shows a text that is in no event, as when the ledger cannot be written."""
        for say in self._says:
            say(text)

    def tell(self, text: str) -> None:
        """Shows how far something is that takes long; "" when it is done."""
        for count in self._counts:
            count(text)
