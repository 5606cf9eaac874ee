"""Packed trials: one engine a GPU owns the base, and every slot of it is a Ray Tune trial of its own.

The trial's actor stays what it is (trial_actor.py); only its program is another: an `EngineClient` (engine_client.py)
that asks an engine. The engine's loop runs in a thread of its own and never waits for a verdict: a slot trains on past
its evaluation for a bounded number of steps, and what it did past a stop is dropped with it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from tuner.contract import (
    Assignment,
    Evaluation,
    PackedEngine,
    Preparation,
    Reason,
    Setup,
    Unpackable,
    Verdict,
    as_engine,
    load_program,
)
from tuner.failures import Failure, capture
from tuner.scheduling.wire import checked
from tuner.worker.config import EngineReady, EngineRequest, Refused
from tuner.worker.store_sync import AttemptSync, arrived


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
        self._engine: PackedEngine | None = None
        self._orders: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._places: dict[int, int] = {}
        self._mail: dict[int, SimpleQueue[Setup | Evaluation | Failure]] = {}
        self._syncs: dict[int, AttemptSync] = {}
        self._owed: set[int] = set()
        self._closed = False
        self._broken: Failure | None = None
        self._over: Failure | None = None
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def begin(self, preparation: Preparation, asked: EngineRequest) -> EngineReady | Failure:
        """Makes the engine, and settles how many trials it takes."""

        def make() -> EngineReady:
            try:
                engine = self._make(preparation)
            except Unpackable as why:
                return EngineReady(0, 0, why.message)
            reasons = [engine.refuses(point) for point in asked.points]
            if reasons and all(reasons):
                return EngineReady(0, 0, str(reasons[0]))
            refused = next((str(why) for why in reasons if why), "")
            choice = engine.choose(self._slots, asked.heaviest, measure=asked.measure, beside=self._beside)
            begun = EngineReady(int(choice.slots), int(choice.fit), str(choice.note), refused)
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
        return [(number, sync.attempt) for number, sync in list(self._syncs.items())]

    def close(self) -> list[tuple[int, int]]:
        """Takes no further trial, because the node is about to go; number and attempt of those that are still here."""
        if not self._closed:
            for sync in list(self._syncs.values()):
                capture(sync.hurry)  # one that cannot be told goes on from the state that it has
        self._closed = True
        return self.trials()

    def start(self, assignment: Assignment, preparation: Preparation) -> Setup | Refused | Failure | None:
        """Brings a trial; answers with its set-up, or None where every slot is taken."""
        sync = capture(lambda: AttemptSync(assignment))  # here and not in the loop: its neighbours train on
        if isinstance(sync, Failure):
            return sync
        return self._order(lambda: self._join(assignment, preparation, sync))

    def step(self, number: int) -> Setup | Evaluation | Failure:
        """The next evaluation of trial `number`, which tells the engine that the last one was no stop."""
        mail, sync = self._mail.get(number), self._syncs.get(number)
        if mail is None or sync is None:  # it was in this engine's predecessor
            return Failure(Verdict(Reason.INFRASTRUCTURE, "its engine died"))
        if number in self._owed:
            confirmed = self._order(lambda: self._confirm(number))
            if isinstance(confirmed, Failure):
                return confirmed
        self._owed.add(number)
        answer = mail.get()
        sent = capture(sync.send)  # while the engine trains on
        return sent if isinstance(sent, Failure) else answer

    def stop(self, number: int) -> Failure | None:
        """Takes trial `number` out of its slot at the next step boundary."""
        return self._order(lambda: self._leave(number))

    def _make(self, preparation: Preparation) -> PackedEngine:
        if self._engine is None:
            program = load_program(self._program)
            made = program.pack(self._settings, arrived(preparation), self._slots, beside=self._beside)
            self._engine = as_engine(made)
        return self._engine

    @property
    def _standing(self) -> PackedEngine:
        """The engine, where a trial has joined it."""
        assert self._engine is not None
        return self._engine

    def _join(
        self, assignment: Assignment, preparation: Preparation, sync: AttemptSync
    ) -> Setup | Evaluation | Refused | None:
        number = assignment.number
        self._leave(number)  # an attempt whose actor was lost did not say goodbye
        slot = next((slot for slot in range(self._slots) if slot not in self._places.values()), None)
        if slot is None or self._closed:
            return None
        engine = self._make(preparation)
        self._places[number], self._mail[number], self._syncs[number] = slot, SimpleQueue(), sync
        try:
            return checked(engine.join(slot, assignment))
        except Unpackable as why:
            self._leave(number)
            return Refused(why.message)

    def _confirm(self, number: int) -> None:
        if (slot := self._places.get(number)) is not None:  # else the engine failed; the trial's mail says how
            self._standing.confirm(slot)

    def _leave(self, number: int) -> None:
        slot = self._places.pop(number, None)
        self._owed.discard(number)
        if (mail := self._mail.pop(number, None)) is not None:  # an attempt that still waits there is lost
            mail.put(Failure(Verdict(Reason.INFRASTRUCTURE, "it left its slot")))
        self._syncs.pop(number, None)
        if slot is not None and self._engine is not None:
            self._empty(slot)

    def _empty(self, slot: int) -> None:
        """Has the engine let go of a slot. An engine that cannot is over: the next trial would meet what is left."""
        left = capture(lambda: self._standing.leave(slot))
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
        warmed = capture(lambda: load_program(self._program).warm())
        if isinstance(warmed, Failure):
            return warmed
        while self._broken is None:
            with self._changed:
                while not self._orders and not (self._places and self._standing.busy):
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
        for slot, report in self._standing.advance(limit=1):
            if isinstance(report, BaseException):
                answer: Setup | Evaluation | Failure = Failure.of(report)
            else:
                answer = capture(partial(checked, report))
            self._mail[numbers[slot]].put(answer)

    def _fail(self, failure: Failure) -> None:
        """Ends all trials that are in a slot: a step that failed was a step of each of them."""
        places, self._places = self._places, {}
        for number, slot in places.items():
            self._mail[number].put(failure)
            self._empty(slot)
