"""The engine of packed trials: one on each GPU holds the base, and each of its slots trains one Ray Tune trial.

The trial's actor is the same as for other trials (trial_actor.py); its program is an `EngineClient` (engine_client.py),
which calls an engine. The engine's loop runs in a thread of its own and never waits for a verdict: a slot trains on
past its evaluation for a bounded number of steps. Where the verdict is to stop, those steps are dropped.
"""

from __future__ import annotations

import os
import sys
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
)
from tuner.failures import Failure, capture
from tuner.scheduling.wire import checked
from tuner.worker.config import EngineReady, EngineRequest, ProgramSource, Refused
from tuner.worker.store_sync import AttemptSync, arrived


class EngineActor:
    """A program's engine with up to `slots` slots, and the thread that runs it. Its methods may be called concurrently.

    It imports what the program needs as soon as it starts; `begin` hands it the prepared data and makes the engine.
    Where Ray restarts the actor after its process died, the first trial that comes makes the engine.

    threads: for computation on a CPU; None: as many as the environment says. beside: whether unpacked trials share its
    GPU.
    """

    def __init__(
        self, program: ProgramSource, settings: dict[str, Any], slots: int, threads: int | None, *, beside: bool
    ) -> None:
        # Before torch is imported. Ray sets it too, but has subtracted the slots' CPUs and rounded 1.9 cores down to 1
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        self._program, self._settings, self._slots, self._beside = program, settings, slots, beside
        self._engine: PackedEngine | None = None
        self._orders: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._places: dict[int, int] = {}
        """The slot of each trial, by its number."""
        self._answers: dict[int, SimpleQueue[Setup | Evaluation | Failure]] = {}
        """What each trial's next calls of `step` return."""
        self._syncs: dict[int, AttemptSync] = {}
        self._unconfirmed: set[int] = set()
        """Trials that were handed an evaluation: their next `step` confirms it to the engine."""
        self._closed = False
        """Whether no further trial is taken."""
        self._broken: Failure | None = None
        """Why the loop is to end."""
        self._over: Failure | None = None
        """Why the loop has ended."""
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def begin(self, preparation: Preparation, asked: EngineRequest) -> EngineReady | Failure:
        """Makes the engine, and decides how many trials it takes."""

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
        """How many slots are free. All slots of an engine that has ended: a trial that comes is told why."""
        if self._over is not None:
            return self._slots
        return 0 if self._closed else self._slots - len(self._places)

    def trials(self) -> list[tuple[int, int]]:
        """Number and attempt of each trial in a slot."""
        return [(number, sync.attempt) for number, sync in list(self._syncs.items())]

    def close(self) -> list[tuple[int, int]]:
        """Takes no further trial, and asks those in a slot for a checkpoint, because the node is about to go. Returns
        `trials`."""
        if not self._closed:
            for sync in list(self._syncs.values()):
                capture(sync.request_checkpoint)  # where that fails, the trial goes on from its last state
        self._closed = True
        return self.trials()

    def start(self, assignment: Assignment, preparation: Preparation) -> Setup | Refused | Failure | None:
        """Puts a trial into a slot; returns its set-up, or None where every slot is taken."""
        sync = capture(lambda: AttemptSync(assignment))  # in this thread: the loop trains on
        if isinstance(sync, Failure):
            return sync
        return self._order(lambda: self._join(assignment, preparation, sync))

    def step(self, number: int) -> Setup | Evaluation | Failure:
        """The next evaluation of trial `number`. Confirms the one before to the engine: the trial was not stopped
        there."""
        answers, sync = self._answers.get(number), self._syncs.get(number)
        if answers is None or sync is None:  # it was in the process that died, whose place this one took
            return Failure(Verdict(Reason.INFRASTRUCTURE, "its engine died"))
        if number in self._unconfirmed:
            confirmed = self._order(lambda: self._confirm(number))
            if isinstance(confirmed, Failure):
                return confirmed
        self._unconfirmed.add(number)
        answer = answers.get()
        sent = capture(sync.send)  # while the engine trains on
        return sent if isinstance(sent, Failure) else answer

    def stop(self, number: int) -> Failure | None:
        """Takes trial `number` out of its slot at the next step boundary."""
        return self._order(lambda: self._remove(number))

    def end(self) -> None:
        """Ends the engine after its step: every call that waits for an answer returns."""

        def over() -> None:
            self._broken = Failure(Verdict(Reason.INFRASTRUCTURE, "the search has ended"))

        self._order(over)

    def _make(self, preparation: Preparation) -> PackedEngine:
        if self._engine is None:
            program = self._program.load()
            made = program.pack(self._settings, arrived(preparation), self._slots, beside=self._beside)
            self._engine = as_engine(made)
        return self._engine

    @property
    def _joined(self) -> PackedEngine:
        """The engine, which exists once a trial has joined it."""
        assert self._engine is not None
        return self._engine

    def _join(
        self, assignment: Assignment, preparation: Preparation, sync: AttemptSync
    ) -> Setup | Evaluation | Refused | None:
        number = assignment.number
        self._remove(number)  # an earlier attempt whose actor died may still be there
        slot = next((slot for slot in range(self._slots) if slot not in self._places.values()), None)
        if slot is None or self._closed:
            return None
        engine = self._make(preparation)
        self._places[number], self._answers[number], self._syncs[number] = slot, SimpleQueue(), sync
        try:
            setup = checked(engine.join(slot, assignment))
        except Unpackable as why:
            self._remove(number)
            return Refused(why.message)
        self._say_slots()
        return setup

    def _confirm(self, number: int) -> None:
        if (slot := self._places.get(number)) is not None:  # else the engine failed; the trial's next answer says how
            self._joined.confirm(slot)

    def _remove(self, number: int) -> None:
        """Takes a trial out of its slot, if it is in one."""
        slot = self._places.pop(number, None)
        self._unconfirmed.discard(number)
        if (answers := self._answers.pop(number, None)) is not None:  # for an attempt that still waits in `step`
            answers.put(Failure(Verdict(Reason.INFRASTRUCTURE, "it left its slot")))
        self._syncs.pop(number, None)
        if slot is not None and self._engine is not None:
            self._empty(slot)
            self._say_slots()

    def _say_slots(self) -> None:
        """Says which trial is in which slot: the page of an actor in the dashboard opens on standard error."""
        trials = {slot: f"trial {number}" for number, slot in self._places.items()}
        slots = (f"slot {slot}: {trials.get(slot, 'free')}" for slot in range(self._slots))
        sys.stderr.write(" | ".join(slots) + "\n")
        sys.stderr.flush()

    def _empty(self, slot: int) -> None:
        """Has the engine empty a slot. Where that fails the engine ends: the next trial would find the slot in use."""
        emptied = capture(lambda: self._joined.leave(slot))
        if isinstance(emptied, Failure):
            self._broken = emptied

    def _order(self, order: Callable[[], Any]) -> Any:
        """Has the thread carry out `order` between two steps, and waits for it. Returns its value, or the Failure of
        the order or of the engine."""
        done: Future[Any] = Future()
        with self._changed:
            if self._over is not None:
                return self._over
            self._orders.append((order, done))
            self._changed.notify()
        return done.result()

    def _run(self) -> None:
        """The engine's thread. When it ends, every call that waits for an answer gets its Failure, and so does every
        later one."""
        over = capture(self._work)
        with self._changed:
            self._over = over
            waiting = [done for _, done in self._orders]
            self._orders.clear()
        for done in waiting:
            done.set_result(over)
        for answers in list(self._answers.values()):
            answers.put(over)

    def _work(self) -> Failure:
        """Carries out orders, and trains between them, until the engine is broken; returns why it is."""
        warmed = capture(lambda: self._program.load().warm())
        if isinstance(warmed, Failure):
            return warmed
        while self._broken is None:
            with self._changed:
                while not self._orders and not (self._places and self._joined.busy):
                    self._changed.wait()
                order, done = self._orders.popleft() if self._orders else (self._advance, None)
            answer = capture(order)
            if done is not None:
                done.set_result(answer)
            elif isinstance(answer, Failure):
                self._fail(answer)
        return self._broken

    def _advance(self) -> None:
        """Trains one engine step, and hands out the evaluations and faults that it brought."""
        numbers = {slot: number for number, slot in self._places.items()}
        for slot, report in self._joined.advance(limit=1):
            if isinstance(report, BaseException):
                answer: Setup | Evaluation | Failure = Failure.of(report)
            else:
                answer = capture(partial(checked, report))
            self._answers[numbers[slot]].put(answer)

    def _fail(self, failure: Failure) -> None:
        """Ends all trials that are in a slot: the step that failed was a step of each of them."""
        places, self._places = self._places, {}
        for number, slot in places.items():
            self._answers[number].put(failure)
            self._empty(slot)
