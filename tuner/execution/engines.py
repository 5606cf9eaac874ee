"""Packed trials: one engine a GPU owns the base, and every slot of it is a Ray Tune trial of its own.

The trial's actor stays what it is (worker.py); only its program is another: a `RemoteProgram` (remote.py) that asks an
engine. The engine's loop runs in a thread of its own and never waits for a verdict: a slot trains on past its
evaluation for a bounded number of steps, and what it did past a stop is dropped with it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError

from tuner.contract import (
    Assignment,
    Evaluation,
    Preparation,
    Program,
    Reason,
    Setup,
    Unpackable,
    Verdict,
    load_program,
)
from tuner.execution.carrying import Luggage, arrived, carried
from tuner.execution.resources import SLOT_CPUS, Resources
from tuner.failures import Failure, capture
from tuner.scheduling.wire import checked


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
        self._mail: dict[int, SimpleQueue[Setup | Evaluation | Failure]] = {}
        self._luggage: dict[int, Luggage] = {}
        self._owed: set[int] = set()
        self._closed = False
        self._broken: Failure | None = None
        self._over: Failure | None = None
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def begin(self, preparation: Preparation, asked: Asked) -> Begun | Failure:
        """Makes the engine, and settles how many trials it takes."""

        def make() -> Begun:
            try:
                self._make(preparation)
            except Unpackable as why:
                return Begun(0, 0, why.message)
            refuses = getattr(self._engine, "refuses", lambda _: None)
            reasons = [refuses(point) for point in asked.points]
            if reasons and all(reasons):
                return Begun(0, 0, str(reasons[0]))
            refused = next((str(why) for why in reasons if why), "")
            choice = self._engine.choose(self._slots, asked.heaviest, measure=asked.measure, beside=self._beside)
            begun = Begun(int(choice.slots), int(choice.fit), str(choice.note), refused)
            self._slots = begun.slots
            return begun

        return self._order(make)

    def __repr__(self) -> str:
        return f"engine of {self._slots} slots"

    def free(self) -> int:
        """How many slots take a trial. All of an engine that is over: a trial that comes is told why."""
        if self._over is not None:
            return self._slots
        return 0 if self._closed else self._slots - len(self._places)

    def trials(self) -> list[tuple[int, int]]:
        """Number and attempt of those that are here."""
        return [(number, luggage.attempt) for number, luggage in list(self._luggage.items())]

    def close(self) -> list[tuple[int, int]]:
        """Takes no further trial, because the node is about to go; number and attempt of those that are still here."""
        if not self._closed:
            for luggage in list(self._luggage.values()):
                capture(luggage.hurry)  # one that cannot be told goes on from the state that it has
        self._closed = True
        return self.trials()

    def start(self, assignment: Assignment, preparation: Preparation) -> Setup | Refused | Failure | None:
        """Brings a trial; answers with its set-up, or None where every slot is taken."""
        luggage = capture(lambda: Luggage(assignment))  # here and not in the loop: its neighbours train on
        if isinstance(luggage, Failure):
            return luggage
        return self._order(lambda: self._join(assignment, preparation, luggage))

    def step(self, number: int) -> Setup | Evaluation | Failure:
        """The next evaluation of trial `number`, which tells the engine that the last one was no stop."""
        mail, luggage = self._mail.get(number), self._luggage.get(number)
        if mail is None or luggage is None:  # it was in this engine's predecessor
            return Failure(Verdict(Reason.INFRASTRUCTURE, "its engine died"))
        if number in self._owed:
            confirmed = self._order(lambda: self._confirm(number))
            if isinstance(confirmed, Failure):
                return confirmed
        self._owed.add(number)
        answer = mail.get()
        sent = capture(luggage.send)  # while the engine trains on
        return sent if isinstance(sent, Failure) else answer

    def stop(self, number: int) -> Failure | None:
        """Takes trial `number` out of its slot at the next step boundary."""
        return self._order(lambda: self._leave(number))

    def _make(self, preparation: Preparation) -> None:
        if self._engine is None:
            made: Any = load_program(self._program)
            self._engine = made.pack(self._settings, arrived(preparation), self._slots, beside=self._beside)

    def _join(
        self, assignment: Assignment, preparation: Preparation, luggage: Luggage
    ) -> Setup | Evaluation | Refused | None:
        number = assignment.number
        self._leave(number)  # an attempt whose actor was lost did not say goodbye
        slot = next((slot for slot in range(self._slots) if slot not in self._places.values()), None)
        if slot is None or self._closed:
            return None
        self._make(preparation)
        self._places[number], self._mail[number], self._luggage[number] = slot, SimpleQueue(), luggage
        try:
            return checked(self._engine.join(slot, assignment))
        except Unpackable as why:
            self._leave(number)
            return Refused(why.message)

    def _confirm(self, number: int) -> None:
        if (slot := self._places.get(number)) is not None:  # else the engine failed; the trial's mail says how
            self._engine.confirm(slot)

    def _leave(self, number: int) -> None:
        slot = self._places.pop(number, None)
        self._owed.discard(number)
        if (mail := self._mail.pop(number, None)) is not None:  # an attempt that still waits there is lost
            mail.put(Failure(Verdict(Reason.INFRASTRUCTURE, "it left its slot")))
        self._luggage.pop(number, None)
        if slot is not None and self._engine is not None:
            self._empty(slot)

    def _empty(self, slot: int) -> None:
        """Has the engine let go of a slot. An engine that cannot is over: the next trial would meet what is left."""
        left = capture(lambda: self._engine.leave(slot))
        if isinstance(left, Failure):
            self._broken = left

    def _order(self, order: Callable[[], Any]) -> Any:
        """Hands the thread something to do between two steps, and waits for it: its value, or the Failure that it, or
        the engine before it, ended with."""
        done: Future[Any] = Future()
        with self._changed:
            if self._over is not None:
                return self._over
            self._orders.append((order, done))
            self._changed.notify()
        return done.result()

    def _run(self) -> None:
        """The engine's thread. Whatever ends it, all who wait for an answer get one, and so does who comes later."""
        over = capture(self._work)
        with self._changed:
            self._over = over
            waiting = [done for _, done in self._orders]
            self._orders.clear()
        for done in waiting:
            done.set_result(over)
        for mail in list(self._mail.values()):
            mail.put(over)

    def _work(self) -> Failure:
        """Carries out orders, and trains between them; returns what the engine broke with."""
        warmed = capture(lambda: warm_up(self._program))
        if isinstance(warmed, Failure):
            return warmed
        while self._broken is None:
            with self._changed:
                while not self._orders and not (self._places and self._engine.busy):
                    self._changed.wait()
                order, done = self._orders.popleft() if self._orders else (self._advance, None)
            answer = capture(order)
            if done is not None:
                done.set_result(answer)
            elif isinstance(answer, Failure):
                self._fail(answer)
        return self._broken

    def _advance(self) -> None:
        numbers = {slot: number for number, slot in self._places.items()}
        for slot, report in self._engine.advance(limit=1):
            failed = isinstance(report, BaseException)
            answer = Failure.of(report) if failed else capture(partial(checked, report))
            self._mail[numbers[slot]].put(answer)

    def _fail(self, failure: Failure) -> None:
        """Ends all trials that are in a slot: a step that failed was a step of each of them."""
        places, self._places = self._places, {}
        for number, slot in places.items():
            self._mail[number].put(failure)
            self._empty(slot)


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

    def trials(self) -> list[tuple[int, int]]:
        """As an engine's."""
        return [] if self._number is None else [(self._number, self._attempt)]

    def close(self) -> list[tuple[int, int]]:
        """As an engine's."""
        self._closed = True
        return self.trials()

    def start(self, assignment: Assignment, preparation: Preparation) -> Setup | Evaluation | Failure | None:
        """Brings a trial; answers with its set-up, or None where another is here."""
        if self._number is not None or self._closed:
            return None
        self._number, self._attempt = assignment.number, assignment.attempt

        def begin() -> Setup | Evaluation:
            self._program = self._program or self._making(preparation)
            return checked(self._program.start(assignment))

        return capture(begin)

    def step(self, number: int) -> Setup | Evaluation | Failure:
        """The next evaluation of the trial that is here."""
        program = self._program
        if program is None or self._number != number:  # it was in this actor's predecessor
            return Failure(Verdict(Reason.INFRASTRUCTURE, "its process died"))
        return capture(lambda: checked(program.step()))

    def stop(self, number: int) -> Failure | None:
        """Takes trial `number` away. Where that fails the next trial gets a program of its own."""
        if self._number != number:
            return None
        stopped = capture(self._program.stop) if self._program is not None else None
        if isinstance(stopped, Failure):
            self._program = None
        self._number = None
        return stopped


@dataclass(frozen=True)
class Asked:
    """heaviest: parameters of the trial that takes most memory. measure: whether to find out how many trials pay.
    points: parameters of trials as different as the space has them, to be asked whether they can be packed."""

    heaviest: Mapping[str, Any]
    measure: bool
    points: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Begun:
    """What an engine settled on: slots to use, how many there is room for, and why in words. No slots: trials on this
    base cannot be packed. refused: why some of the space's cannot, "" where all can."""

    slots: int
    fit: int
    note: str
    refused: str = ""


@dataclass(frozen=True)
class Refused:
    """An engine's answer to a trial that it cannot pack, and that may be trained beside it."""

    why: str


@dataclass(frozen=True)
class Engines:
    """Where trials run packed, and, where some cannot, unpacked beside. For actors: it pickles."""

    program: str
    settings: Mapping[str, Any]
    packed: tuple[Any, ...]
    solos: tuple[Any, ...] = ()
    preparation: Preparation | None = None

    def close(self) -> None:
        """Ends their processes. A second call does nothing."""
        for actor in (*self.packed, *self.solos):
            ray.kill(actor)

    def begin(
        self,
        preparation: Preparation,
        *,
        heaviest: Mapping[str, Any],
        measure: bool,
        points: Sequence[Mapping[str, Any]],
    ) -> list[Begun]:
        """Hands the rows to the engines; returns when they stand. Raises Fault as soon as one cannot.

        It waits as long as it takes: a large base loads for half an hour, and nodes may have to come first.
        """
        asked = Asked(heaviest, measure, points)
        answers = waiting = [engine.begin.remote(preparation, asked) for engine in self.packed]
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=LOOK_S)
            for answer in ready:
                _begun(answer)
        return [_begun(answer) for answer in answers]

    def end(self, number: int) -> None:
        """Ends the process that trains a trial which hangs; Ray makes it anew, and its neighbours go on in that."""
        asked = {actor.trials.remote(): actor for actor in (*self.packed, *self.solos)}
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWERS_WITHIN_S)
        holds = [answer for answer in answered if number in _numbers(answer)]
        for answer in holds or silent:  # a call that never returns to Python holds up the answer as well
            ray.kill(asked[answer], no_restart=False)


def _begun(answer: Any) -> Begun:
    """What an engine settled on. Raises Fault, with words for the user, where it does not stand."""
    try:
        begun: Begun | Failure = ray.get(answer)
    except RayError as error:  # its process died
        begun = Failure.of(error)
    if not isinstance(begun, Failure):
        return begun
    logging.getLogger(__name__).error("no engine stands: %s", begun.traceback)
    fault = begun.fault
    if fault.reason in (Reason.ERROR, Reason.INFRASTRUCTURE):
        fault.message = f"no engine for packed trials: {fault.message}"
        fault.remedy = fault.remedy or "its traceback is in logs/driver.log; --trials-per-gpu 1 does without engines"
    raise fault


def _numbers(answer: Any) -> set[int]:
    try:
        return {number for number, _ in ray.get(answer)}
    except RayError:
        return set()


LOOK_S = 0.5
"""Between two looks at which engines stand."""
ANSWERS_WITHIN_S = 5.0
"""For an engine to say which trials it has, which it can while it trains."""
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
    found = Engines(program, settings, made, beside)
    try:
        yield found
    finally:
        found.close()


def warm_up(program: str) -> None:
    """Lets a program import what it needs, if it can do so ahead of its rows."""
    warm = getattr(load_program(program), "warm", None)
    if warm is not None:
        warm()
