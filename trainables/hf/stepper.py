"""Runs a loop that hands items to a callback, one item at a time.

SFTTrainer owns its loop and calls back, while the driver asks for one evaluation at a time. So the loop runs in a
thread of its own, and at any moment either the loop or its caller runs, never both. A generator does the same, but its
body cannot be a library's loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Ended(Exception):
    """The body has returned: it hands over nothing more."""


class CallbackStepper(Generic[Item]):
    """Runs `body(hand_over)` in a thread, one item at a time.

    The body calls `hand_over(item)`, which gives `item` to the caller and waits: for True to go on, or False to finish.
    The thread starts with the first `next`, so a body that is never asked for an item never runs.
    """

    def __init__(self, body: Callable[[Callable[[Item], bool]], None]) -> None:
        self._body = body
        self._go: SimpleQueue[bool] = SimpleQueue()
        self._items: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over = False

    def next(self) -> Item:
        """The next item. Raises what the body raises, with its traceback, and Ended when the body has returned."""
        if self._over:
            raise Ended
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
            self._thread.start()
        else:
            self._go.put(True)
        kind, value = self._items.get()
        if kind == "item":
            return value
        self._over = True
        self._thread.join()
        raise value if kind == "error" else Ended

    def close(self) -> None:
        """Makes the body finish from wherever it waits, and waits for that. What it raises meanwhile is dropped."""
        if self._thread is not None and not self._over:
            while True:
                self._go.put(False)
                kind, _ = self._items.get()
                if kind != "item":
                    break
            self._thread.join()
        self._over = True
        self._thread = None

    def _run(self) -> None:
        try:
            self._body(self._hand_over)
        except BaseException as error:
            self._items.put(("error", error))
        else:
            self._items.put(("end", None))

    def _hand_over(self, item: Item) -> bool:
        self._items.put(("item", item))
        return self._go.get()
