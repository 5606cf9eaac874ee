"""Runs a user's own Python in a process of its own: imports a module to check it, and calls a function in it.

Code that hangs, exits, recurses without end or crashes there ends that process and not the search. The process has no
standard input, what it prints is dropped, and it ends with the process that started it. The two exchange lines of JSON
over two pipes.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.blame import Trouble, of_error, of_stack
from tuner.error_text import nearest, shown_path
from tuner.importing import Own

IMPORT_S = 60.0
"""Seconds for the import of a module: some import torch, 15 s on a busy machine."""
CALL_S = 10.0
"""Seconds for one call."""
GRACE_S = 3.0
"""Seconds more for the process to report where its code is."""

_START = "import sys; sys.path[:] = {path!r}; from tuner.guest import main; main({reading}, {writing})"

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes a `suggest_...` call of the function as JSON, and returns {"value": ...} or {"raised": text}."""


class Failed(Exception):
    """The user's code failed. trouble: what went wrong, in their terms."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.what)
        self.trouble = trouble


class Guest:
    """A process that has imported a user's module. kind: what `own.name` in it must be, "function" or "class". takes:
    what a function is called with, in words.

    Raises Failed where the import fails, the name is something else, or the function takes something else.
    """

    def __init__(self, own: Own, kind: str, takes: Sequence[str] = ("one trial",)) -> None:
        reading, to_us = os.pipe()
        from_us, self._writing = os.pipe()
        self._reading, self._heard = reading, b""
        path = [*sys.path, str(own.folder)]
        code = _START.format(path=path, reading=from_us, writing=to_us)
        # -P: keeps the current folder from the front of sys.path; `path` has it where it belongs
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(from_us, to_us),
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)
        self.close = weakref.finalize(self, _end, self._process, self._reading, self._writing)
        names = {"target": own.target, "file": str(own.file), "folder": str(own.folder), "kind": kind}
        request: dict[str, Any] = {**names, "takes": list(takes)}
        self._ask({"do": "load", **request}, IMPORT_S, None)

    def call(self, values: Mapping[str, Any], answer: Answer) -> Any:
        """Calls the function with a trial, and returns what it returned. values: the trial's, among them its "number".
        answer: answers the trial's `suggest_...` calls.

        Raises Failed for whatever goes wrong in the function.
        """
        return self._ask({"do": "draw", **values}, CALL_S, answer)

    def value(self, arguments: Sequence[Any], limit: float = CALL_S) -> Any:
        """Calls the function with arguments of JSON, and returns what it returned. limit: seconds. Raises Failed."""
        return self._ask({"do": "call", "arguments": list(arguments)}, limit, None)

    def _ask(self, request: Mapping[str, Any], limit: float, answer: Answer | None) -> Any:
        self._send({**request, "limit": limit})
        end = time.monotonic() + limit + GRACE_S
        while True:
            told = self._receive(end)
            if told is None:
                self.close()
                code = self._process.returncode
                what = f"was ended by signal {-code}" if code < 0 else f"ended its process with exit code {code}"
                raise Failed(Trouble(what))
            if told["kind"] == "ask" and answer is not None:
                began = time.monotonic()
                self._send(answer(told))
                end += time.monotonic() - began
            elif told["kind"] == "value":
                return told["value"]
            else:
                raise Failed(Trouble.from_dict(told))

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the next `_receive` finds that it has ended
            os.write(self._writing, (json.dumps(message) + "\n").encode())

    def _receive(self, end: float) -> Any:
        """The process's next message; None where it has ended. Raises Failed where none comes until `end`
        (monotonic)."""
        waiting = select.poll()
        waiting.register(self._reading, select.POLLIN)
        while b"\n" not in self._heard:
            left = end - time.monotonic()
            if left <= 0:
                self.close()
                raise Failed(Trouble("did not come back, and could not be asked where it stands"))
            if not waiting.poll(left * 1000):
                continue
            more = os.read(self._reading, 65536)
            if not more:
                return None
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)


def _end(process: subprocess.Popen[bytes], *pipes: int) -> None:
    """Closes the pipes, at which the process ends by itself; kills it after 0.5 s."""
    for pipe in pipes:
        os.close(pipe)
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- in the process ---


class _Connection:
    """The pipes to the search. A thread reads, and ends the process when the search closes its pipe, whatever the
    user's code is doing."""

    def __init__(self, reading: int, writing: int) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._writing, self._lock = writing, threading.Lock()
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def _listen(self, reading: int) -> None:
        with open(reading, "rb") as lines:
            for line in lines:
                self._messages.put(json.loads(line))
        os._exit(0)

    def next(self) -> Any:
        return self._messages.get()

    def send(self, message: Mapping[str, Any]) -> None:
        text = json.dumps(message, default=_plain).encode() + b"\n"
        with self._lock:
            while text:
                text = text[os.write(self._writing, text) :]


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is neither text, a number, true, false, null nor a list of them")


class _TimeLimit:
    """Once the user's code has run for too long, reports where it is and ends the process."""

    def __init__(self, connection: _Connection, own: Own) -> None:
        self._connection, self._own, self._main = connection, own, threading.get_ident()
        self._limit = self._left = 0.0

    @contextlib.contextmanager
    def over(self, limit: float) -> Iterator[None]:
        """Limits this block to `limit` seconds."""
        self._limit = self._left = limit
        self._go()
        try:
            yield
        finally:
            self._stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count the time in this block: the search takes it for its answer."""
        self._stop()
        try:
            yield
        finally:
            self._go()

    def _go(self) -> None:
        self._since = time.monotonic()
        self._timer = threading.Timer(self._left, self._late)
        self._timer.daemon = True
        self._timer.start()

    def _stop(self) -> None:
        self._timer.cancel()
        self._left = max(0.1, self._left - (time.monotonic() - self._since))

    def _late(self) -> None:
        frame = sys._current_frames().get(self._main)
        trouble = of_stack(f"did not come back within {self._limit:g} s", frame, self._own.wrote)
        self._connection.send({"kind": "trouble", **trouble.to_dict()})
        os._exit(1)


class _Trial:
    """The trial that a space function is called with: it has the methods of Optuna's, and the search answers them."""

    def __init__(self, connection: _Connection, limit: _TimeLimit, number: int) -> None:
        self._connection, self._limit = connection, limit
        self.number = number
        self.params: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.params[name] = value = self._ask("suggest_float", name, low, high, step=step, log=log)
        return float(value)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.params[name] = value = self._ask("suggest_int", name, low, high, step=step, log=log)
        return int(value)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        options = list(choices)
        self.params[name] = value = options[self._ask("suggest_categorical", name, options)]
        return value

    def set_user_attr(self, key: str, value: Any) -> None:
        self._ask("set_user_attr", key, value)

    def _ask(self, method: str, name: str, *arguments: Any, **more: Any) -> Any:
        if not isinstance(name, str):
            raise TypeError(f"a name is text, and not {name!r}")
        self._connection.send({"kind": "ask", "method": method, "name": name, "arguments": arguments, "more": more})
        with self._limit.paused():
            told = self._connection.next()
        if "raised" in told:
            raise ValueError(told["raised"])
        return told["value"]


def main(reading: int, writing: int) -> None:
    """Serves the process that started this one until that closes the pipe. reading, writing: descriptors of the
    pipes."""
    connection = _Connection(reading, writing)
    request = connection.next()
    own = Own(request["target"], Path(request["file"]), Path(request["folder"]), allowed=True)
    limit = _TimeLimit(connection, own)
    found: Any = None
    while True:
        trouble: Trouble | None = None
        value: Any = None
        try:
            with limit.over(request["limit"]):
                if request["do"] == "load":
                    found, trouble = _load(own, request["kind"], request["takes"])
                elif request["do"] == "call":
                    value = found(*request["arguments"])
                else:
                    value = found(_Trial(connection, limit, request["number"]))
        except BaseException as error:
            trouble = of_error(error, own.wrote)
        if trouble is None:
            try:
                connection.send({"kind": "value", "value": value})
            except (TypeError, ValueError, RecursionError) as error:
                what = "point" if request["do"] == "draw" else "number or text"
                trouble = Trouble(f"returned what is no {what}: {error}")
        if trouble is not None:
            connection.send({"kind": "trouble", **trouble.to_dict()})
        request = connection.next()


def _load(own: Own, kind: str, takes: Sequence[str]) -> tuple[Any, Trouble | None]:
    """The function or class, and what is wrong with it; None where nothing is."""
    module = importlib.import_module(own.module)
    if not hasattr(module, own.name):
        guess = nearest(own.name, vars(module))
        return None, Trouble("is not there" + (f"; did you mean `{guess}`?" if guess else ""))
    found = getattr(module, own.name)
    return found, (_no_function(own, found, takes) if kind == "function" else _no_class(own, found))


def _no_function(own: Own, found: Any, takes: Sequence[str]) -> Trouble | None:
    if not isinstance(found, types.FunctionType):
        return Trouble(f"is not a function of yours ({type(found).__name__})")
    if not own.wrote(found.__code__.co_filename):
        return Trouble(f"is not a function of yours: it comes from {found.__module__}")
    at = f"{shown_path(found.__code__.co_filename)}:{found.__code__.co_firstlineno}"
    if inspect.isgeneratorfunction(found) or inspect.iscoroutinefunction(found):
        return Trouble("is a generator or a coroutine", at)
    try:
        inspect.signature(found).bind(*takes)
    except TypeError:
        return Trouble(f"takes {inspect.signature(found)}, and is called with {', '.join(takes)}", at)
    return None


def _no_class(own: Own, found: Any) -> Trouble | None:
    if not isinstance(found, type):
        return Trouble(f"is not a class ({type(found).__name__})")
    home = getattr(sys.modules.get(found.__module__), "__file__", None)
    if home is None or not own.wrote(home):
        return Trouble(f"is not a class of yours: it comes from {found.__module__}")
    return None
