"""Who is told of a search but has no part in it: whatever one of them does, the search goes on.

None of them may wait for anything outside of this process either. Streams and trackers have threads for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tuner.results.ledger import Event
from tuner.streams import note


class Dropped:
    """A call that is made until it raises for the first time. From then on it does nothing; the run's log says so once.

    Signals (`StopRequested`, KeyboardInterrupt) are none of its errors: they pass through.
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
    """A listener of the ledger that tells others, each of which is dropped where it raises."""

    def __init__(self, listeners: Iterable[Callable[[Event], None]] = ()) -> None:
        self._tells: list[Dropped] = []
        self._says: list[Dropped] = []
        for listener in listeners:
            self.add(listener)

    def add(self, listener: Callable[[Event], None]) -> None:
        name = type(listener).__name__
        self._tells.append(Dropped(f"the listener {name}", listener))
        if (say := getattr(listener, "say", None)) is not None:
            self._says.append(Dropped(f"what {name} says", say))

    def __call__(self, event: Event) -> None:
        for tell in self._tells:
            tell(event)

    def say(self, text: str) -> None:
        """Shows what no event can tell, because it cannot be written down."""
        for say in self._says:
            say(text)
