"""Packed trials: one engine a GPU owns the base, and every slot of it is a Ray Tune trial of its own.

The trial's actor stays what it is (worker.py); only its program is another: a `RemoteProgram` that asks an engine. The
engine's loop runs in a thread of its own and never waits for a verdict: a slot trains on past its evaluation for a
bounded number of steps, and what it did past a stop is dropped with it.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayActorError

from tuner.contract import Assignment, Evaluation, Fault, InputError, Preparation, Reason, Setup, Verdict, load_program

Report = Setup | Evaluation | Verdict
Answer = tuple[Report, str]
"""A report and, with a verdict, the traceback behind it."""

SLOT_CPUS = 0.01
"""What a trial's actor holds when an engine does its work."""


class EngineActor:
    """A program's engine with `slots` places, and the thread that runs it. Its methods may be called at once."""

    def __init__(self, program: str, settings: dict[str, Any], preparation: Preparation, slots: int) -> None:
        made: Any = load_program(program)
        self._making = lambda: made.pack(settings, preparation, slots)
        self._slots = slots
        self._orders: deque[tuple[Any, Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._places: dict[int, int] = {}
        self._mail: dict[int, SimpleQueue[Answer]] = {}
        self._owed: set[int] = set()
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def __repr__(self) -> str:
        return f"engine of {self._slots} slots"

    def free(self) -> int:
        """How many slots are empty."""
        return self._slots - len(self._places)

    def start(self, assignment: Assignment) -> Answer | None:
        """Brings a trial; answers with its set-up, or None where every slot is taken."""
        return self._order(lambda engine: self._join(engine, assignment))

    def step(self, number: int) -> Answer:
        """The next evaluation of trial `number`, which tells the engine that the last one was no stop."""
        if number in self._owed:
            self._order(lambda engine: engine.confirm(self._places[number]))
        self._owed.add(number)
        return self._mail[number].get()

    def stop(self, number: int) -> None:
        """Takes trial `number` out of its slot at the next step boundary."""
        self._order(lambda engine: self._leave(engine, number))

    def _join(self, engine: Any, assignment: Assignment) -> Answer | None:
        slot = next((slot for slot in range(self._slots) if slot not in self._places.values()), None)
        if slot is None:
            return None
        number = assignment.number
        self._places[number], self._mail[number] = slot, SimpleQueue()
        try:
            return engine.join(slot, assignment), ""
        except Exception as error:
            return _verdict(error)

    def _leave(self, engine: Any, number: int) -> None:
        slot = self._places.pop(number, None)
        self._owed.discard(number)
        self._mail.pop(number, None)
        if slot is not None:
            engine.leave(slot)

    def _order(self, order: Any) -> Any:
        """Hands the loop something to do between two steps, and waits until it is done."""
        done: Future[Any] = Future()
        with self._changed:
            self._orders.append((order, done))
            self._changed.notify()
        return done.result()

    def _run(self) -> None:
        engine = None
        while True:
            with self._changed:
                while not self._orders and (engine is None or not engine.busy):
                    self._changed.wait()
                orders, self._orders = list(self._orders), deque()
            for order, done in orders:
                try:
                    engine = engine or self._making()
                    done.set_result(order(engine))
                except BaseException as error:
                    # Only the making of the engine and an engine that broke get here; the caller says it in words.
                    done.set_result(_verdict(error))
            if engine is None:
                continue
            try:
                for slot, report in engine.advance(limit=1):
                    number = next(n for n, place in self._places.items() if place == slot)
                    self._mail[number].put(_verdict(report) if isinstance(report, Fault) else (report, ""))
            except Exception as error:
                answer = _verdict(error)
                for number, slot in list(self._places.items()):
                    engine.leave(slot)
                    self._mail[number].put(answer)


class RemoteProgram:
    """A trial's side of an engine: starts, steps and stops like any program."""

    def __init__(self, engines: Sequence[Any]) -> None:
        self._engines = engines
        self._engine: Any = None
        self._number = -1

    def start(self, assignment: Assignment) -> Setup:
        """Takes a slot of the engine with the most free ones; of the next where a neighbour took the last.

        There is a slot for every trial that Ray runs at a time, so one is found.
        """
        self._number = assignment.number
        while True:
            free = ray.get([engine.free.remote() for engine in self._engines])
            for place in sorted(range(len(free)), key=lambda place: -free[place]):
                self._engine = self._engines[place]
                setup = self._answer(self._engine.start.remote(assignment))
                if setup is not None:
                    return setup
            time.sleep(0.05)

    def step(self) -> Evaluation:
        return self._answer(self._engine.step.remote(self._number))

    def stop(self) -> None:
        try:
            ray.get(self._engine.stop.remote(self._number))
        except RayActorError:
            return  # its trials went with it

    def _answer(self, answer: Any) -> Any:
        try:
            given = ray.get(answer)
        except RayActorError as error:
            raise Fault(Reason.INFRASTRUCTURE, "its engine died") from error
        if given is None:
            return None
        report, trace = given
        if isinstance(report, Verdict):
            raise Fault(report.reason, report.message, report.remedy) from (RuntimeError(trace) if trace else None)
        return report


@contextmanager
def engines(
    number: int,
    slots: int,
    *,
    program: str,
    settings: dict[str, Any],
    preparation: Preparation,
    cpus: float,
    gpus: float,
) -> Iterator[tuple[Any, ...]]:
    """`number` engines of `slots` slots each, for as long as they are needed. cpus, gpus: what one engine and the
    actors of its trials hold together."""
    make = ray.remote(EngineActor).options(
        num_cpus=max(0.1, round(cpus - SLOT_CPUS * slots, 2)),
        num_gpus=gpus,
        # A step of each slot may wait for its evaluation while others start, confirm and stop
        max_concurrency=3 * slots + 4,
    )
    made = tuple(make.remote(program, settings, preparation, slots) for _ in range(number))
    try:
        yield made
    finally:
        for engine in made:
            ray.kill(engine)


def _verdict(error: BaseException) -> Answer:
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Fault):
        return error.verdict, trace
    if isinstance(error, InputError):
        return Verdict(Reason.CONFIG, str(error)), trace
    return Verdict(Reason.ERROR, f"{type(error).__name__}: {error}".splitlines()[0][:300]), trace
