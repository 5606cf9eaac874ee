"""A thread and its caller taking strict turns.

SFTTrainer owns its loop and must run it, and the driver wants one evaluation at a time. So the loop runs in a thread of
its own, and at any moment either it or its caller runs, never both: a generator whose body may be a library's loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Ended(Exception):
    """The body returned: there is nothing more to hand over."""


class Turns(Generic[Item]):
    """Runs `body(hand_over)` in a thread, a turn at a time.

    The body calls `hand_over(item)` to give `item` to the caller and wait; it gets True to go on and False to finish.
    The thread starts with the first turn, so what is never asked for never runs.
    """

    def __init__(self, body: Callable[[Callable[[Item], bool]], None]) -> None:
        self._body = body
        self._go: SimpleQueue[bool] = SimpleQueue()
        self._given: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over = False

    def next(self) -> Item:
        """The next item. What the body raises is raised here, with its own traceback; Ended when it returned."""
        if self._over:
            raise Ended
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
            self._thread.start()
        else:
            self._go.put(True)
        kind, value = self._given.get()
        if kind == "item":
            return value
        self._over = True
        self._thread.join()
        raise value if kind == "error" else Ended

    def close(self) -> None:
        """Ends the body, wherever it waits, and waits for it. What it raises on its way out is dropped."""
        if self._thread is not None and not self._over:
            while True:
                self._go.put(False)
                kind, _ = self._given.get()
                if kind != "item":
                    break
            self._thread.join()
        self._over = True
        self._thread = None

    def _run(self) -> None:
        try:
            self._body(self._hand_over)
        except BaseException as error:
            self._given.put(("error", error))
        else:
            self._given.put(("end", None))

    def _hand_over(self, item: Item) -> bool:
        self._given.put(("item", item))
        return self._go.get()
