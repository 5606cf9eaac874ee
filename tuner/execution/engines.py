"""Packed trials: one engine a GPU owns the base, and every slot of it is a Ray Tune trial of its own.

The trial's actor stays what it is (worker.py); only its program is another: a `RemoteProgram` (remote.py) that asks an
engine. The engine's loop runs in a thread of its own and never waits for a verdict: a slot trains on past its
evaluation for a bounded number of steps, and what it did past a stop is dropped with it.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import ray

from tuner.contract import (
    Assignment,
    Evaluation,
    Fault,
    InputError,
    Preparation,
    Program,
    Reason,
    Setup,
    Verdict,
    load_program,
)
from tuner.disks import trouble_of
from tuner.execution.carrying import Luggage, arrived, carried
from tuner.execution.resources import SLOT_CPUS, Resources

Report = Setup | Evaluation | Verdict
Answer = tuple[Report, str]
"""A report and, with a verdict, the traceback behind it."""


class EngineActor:
    """A program's engine with up to `slots` places, and the thread that runs it. Its methods may be called at once.
    threads: of what it computes on a CPU; None: as many as its environment says. beside: whether unpacked trials share
    its GPU.

    It imports what the program needs as soon as it lives; `begin` hands it the rows and makes the engine. One that took
    the place of one that died is made by the first trial that comes.
    """

    def __init__(
        self, program: str, settings: dict[str, Any], slots: int, threads: int | None, *, beside: bool
    ) -> None:
        # Before torch is imported. Ray has counted what the slots' actors hold off, and rounded 1.9 cores down to one
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        self._program, self._settings, self._slots, self._beside = program, settings, slots, beside
        self._engine: Any = None
        self._orders: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._places: dict[int, int] = {}
        self._mail: dict[int, SimpleQueue[Answer]] = {}
        self._luggage: dict[int, Luggage] = {}
        self._owed: set[int] = set()
        self._closed = False
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def begin(self, preparation: Preparation, asked: Asked) -> Begun | Answer:
        """Makes the engine, and settles how many trials it takes."""

        def make() -> Begun:
            self._make(preparation)
            choice = self._engine.choose(self._slots, asked.heaviest, measure=asked.measure, beside=self._beside)
            self._slots = choice.slots
            return Begun(choice.slots, choice.fit, choice.note)

        return self._order(make)

    def __repr__(self) -> str:
        return f"engine of {self._slots} slots"

    def free(self) -> int:
        """How many slots take a trial."""
        return 0 if self._closed else self._slots - len(self._places)

    def close(self) -> list[tuple[int, int]]:
        """Takes no further trial, because the node is about to go; number and attempt of those that are still here."""
        if not self._closed:
            for luggage in list(self._luggage.values()):
                luggage.hurry()
        self._closed = True
        return [(number, luggage.attempt) for number, luggage in list(self._luggage.items())]

    def start(self, assignment: Assignment, preparation: Preparation) -> Answer | None:
        """Brings a trial; answers with its set-up, or None where every slot is taken."""
        try:
            luggage = Luggage(assignment)  # here and not in the loop: its neighbours train on
        except Exception as error:
            return verdict_of(error)
        return self._order(lambda: self._join(assignment, preparation, luggage))

    def step(self, number: int) -> Answer:
        """The next evaluation of trial `number`, which tells the engine that the last one was no stop."""
        if number not in self._mail:  # it was in this engine's predecessor
            return verdict_of(Fault(Reason.INFRASTRUCTURE, "its engine died"))
        if number in self._owed:
            self._order(lambda: self._engine.confirm(self._places[number]))
        self._owed.add(number)
        luggage, answer = self._luggage[number], self._mail[number].get()
        try:
            luggage.send()  # while the engine trains on
        except Exception as error:
            return verdict_of(error)
        return answer

    def stop(self, number: int) -> None:
        """Takes trial `number` out of its slot at the next step boundary."""
        self._order(lambda: self._leave(number))

    def _make(self, preparation: Preparation) -> None:
        if self._engine is None:
            made: Any = load_program(self._program)
            self._engine = made.pack(self._settings, arrived(preparation), self._slots, beside=self._beside)

    def _join(self, assignment: Assignment, preparation: Preparation, luggage: Luggage) -> Answer | None:
        number = assignment.number
        self._leave(number)  # an attempt whose actor was lost did not say goodbye
        slot = next((slot for slot in range(self._slots) if slot not in self._places.values()), None)
        if slot is None or self._closed:
            return None
        self._places[number], self._mail[number], self._luggage[number] = slot, SimpleQueue(), luggage
        try:
            self._make(preparation)
            return self._engine.join(slot, assignment), ""
        except Exception as error:
            return verdict_of(error)

    def _leave(self, number: int) -> None:
        slot = self._places.pop(number, None)
        self._owed.discard(number)
        if (mail := self._mail.pop(number, None)) is not None:
            mail.put(verdict_of(Fault(Reason.INFRASTRUCTURE, "it left its slot")))  # who still waits there is lost
        self._luggage.pop(number, None)
        if slot is not None and self._engine is not None:
            self._engine.leave(slot)

    def _order(self, order: Callable[[], Any]) -> Any:
        """Hands the loop something to do between two steps, and waits until it is done."""
        done: Future[Any] = Future()
        with self._changed:
            self._orders.append((order, done))
            self._changed.notify()
        return done.result()

    def _run(self) -> None:
        warm_up(self._program)
        while True:
            with self._changed:
                while not self._orders and (self._engine is None or not self._engine.busy):
                    self._changed.wait()
                orders, self._orders = list(self._orders), deque()
            for order, done in orders:
                try:
                    done.set_result(order())
                except BaseException as error:
                    # Only the making of the engine and an engine that broke get here; the caller says it in words.
                    done.set_result(verdict_of(error))
            if self._engine is not None:
                self._advance(self._engine)

    def _advance(self, engine: Any) -> None:
        try:
            for slot, report in engine.advance(limit=1):
                number = next(n for n, place in self._places.items() if place == slot)
                self._mail[number].put(verdict_of(report) if isinstance(report, Fault) else (report, ""))
        except Exception as error:
            answer = verdict_of(error)
            for number, slot in list(self._places.items()):
                engine.leave(slot)
                self._mail[number].put(answer)


class SoloActor:
    """A program beside an engine, on the same GPU with a base of its own, for trials that cannot be packed: one at a
    time. It loads nothing before the first of them comes."""

    def __init__(self, program: str, settings: dict[str, Any]) -> None:
        self._making = lambda preparation: carried(load_program(program)(settings, arrived(preparation)), preparation)
        self._program: Program | None = None
        self._number: int | None = None
        self._attempt = 0
        self._closed = False

    def __repr__(self) -> str:
        return "unpacked beside an engine"

    def free(self) -> int:
        """1 where a trial may come."""
        return int(self._number is None and not self._closed)

    def close(self) -> list[tuple[int, int]]:
        """As an engine's."""
        self._closed = True
        return [] if self._number is None else [(self._number, self._attempt)]

    def start(self, assignment: Assignment, preparation: Preparation) -> Answer | None:
        """Brings a trial; answers with its set-up, or None where another is here."""
        if self._number is not None or self._closed:
            return None
        self._number, self._attempt = assignment.number, assignment.attempt
        try:
            self._program = self._program or self._making(preparation)
            return self._program.start(assignment), ""
        except Exception as error:
            return verdict_of(error)

    def step(self, number: int) -> Answer:
        """The next evaluation of the trial that is here."""
        if self._program is None or self._number != number:  # it was in this actor's predecessor
            return verdict_of(Fault(Reason.INFRASTRUCTURE, "its process died"))
        try:
            return self._program.step(), ""
        except Exception as error:
            return verdict_of(error)

    def stop(self, number: int) -> None:
        """Takes trial `number` away."""
        if self._number == number:
            self._number = None
            if self._program is not None:
                self._program.stop()


@dataclass(frozen=True)
class Asked:
    """heaviest: parameters of the trial that takes most memory. measure: whether to find out how many trials pay."""

    heaviest: Mapping[str, Any]
    measure: bool


@dataclass(frozen=True)
class Begun:
    """What an engine settled on: slots to use, how many there is room for, and why in words."""

    slots: int
    fit: int
    note: str


@dataclass(frozen=True)
class Engines:
    """Where trials run packed, and, where some cannot, unpacked beside. For actors: it pickles."""

    program: str
    settings: Mapping[str, Any]
    packed: tuple[Any, ...]
    solos: tuple[Any, ...] = ()
    preparation: Preparation | None = None

    def begin(self, preparation: Preparation, *, heaviest: Mapping[str, Any], measure: bool) -> list[Begun]:
        """Hands the rows to the engines; returns when they stand. Raises Fault where one cannot."""
        begun = []
        asked = Asked(heaviest, measure)
        for answer in ray.get([engine.begin.remote(preparation, asked) for engine in self.packed]):
            if isinstance(answer, Begun):
                begun.append(answer)
            else:
                verdict, trace = answer
                raise Fault(verdict.reason, verdict.message, verdict.remedy) from RuntimeError(trace)
        return begun


SOLO_SHARE = 0.1
"""Of an engine's GPU and CPUs, what an unpacked trial beside it holds in Ray's books."""


@contextmanager
def engines(
    resources: Resources,
    *,
    program: str,
    settings: dict[str, Any],
    mixed: bool,
    accelerator_type: str | None = None,
) -> Iterator[Engines]:
    """Engines for as long as they are needed, and with `mixed` a place beside each for a trial that cannot be packed.

    They begin to import at once; `Engines.begin` makes them ready.
    """
    cpus = max(0.1, round(resources.cpus - SLOT_CPUS * resources.slots, 2))
    share = SOLO_SHARE if mixed else 0.0
    options = {
        "max_concurrency": 3 * resources.slots + 4,  # each slot may wait while others start, confirm and stop
        "max_restarts": -1,  # its trials are tried again on what takes its place, as often as `retries` has it
        "accelerator_type": accelerator_type,
    }
    threads = None if "OMP_NUM_THREADS" in os.environ else max(1, int(resources.cpus))
    engine, solo = ray.remote(EngineActor), ray.remote(SoloActor)
    made = tuple(
        engine.options(
            num_cpus=round(cpus * (1 - share), 3), num_gpus=round(resources.gpus * (1 - share), 3), **options
        ).remote(program, settings, resources.slots, threads, beside=mixed)
        for _ in range(resources.workers)
    )
    beside = tuple(
        solo.options(
            num_cpus=round(cpus * share, 3),
            num_gpus=round(resources.gpus * share, 3),
            max_concurrency=4,
            max_restarts=-1,
            accelerator_type=accelerator_type,
        ).remote(program, settings)
        for _ in range(resources.workers if mixed else 0)
    )
    try:
        yield Engines(program, settings, made, beside)
    finally:
        for actor in (*made, *beside):
            ray.kill(actor)


def warm_up(program: str) -> None:
    """Lets a program import what it needs, if it can do so ahead of its rows."""
    warm = getattr(load_program(program), "warm", None)
    if warm is not None:
        warm()


def verdict_of(error: BaseException) -> Answer:
    """What went wrong, as a report, and its traceback."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Fault):
        return error.verdict, trace
    if (trouble := trouble_of(error)) is not None:  # an InputError, too, may be said because of a failing disk
        return trouble.verdict, trace
    if isinstance(error, InputError):
        return Verdict(Reason.CONFIG, str(error)), trace
    return Verdict(Reason.ERROR, f"{type(error).__name__}: {error}".splitlines()[0][:300]), trace
