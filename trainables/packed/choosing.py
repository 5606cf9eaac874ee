"""Chooses how many trials an engine takes: as many as fit into memory, and if asked, no more than make it faster."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import torch

from tuner.contract import Assignment, Fault, Reason

_PAYS = 1.1
"""More slots are taken only if all trials together then take at least this many times the steps a second: with fewer
trials at a time, the sampler knows more when it draws the next."""
_TIMED_TOGETHER = 3
"""Steps that are timed together where nothing is captured, after one that is not timed."""
_UNTIMED = 2
"""Steps that are not timed where the engine captures CUDA graphs: the first of a shape is launched kernel by kernel and
the second captured, which takes several times as long as a replay."""
_TIMED_ONE_BY_ONE = 6
"""Steps that are then timed one by one: the shortest counts."""
_USABLE = 0.9
"""Share of a GPU's memory that slots can use; the rest is lost between the allocator's blocks."""


@dataclass(frozen=True)
class SlotChoice:
    """How many trials an engine takes at a time, and why."""

    slots: int
    """Trials that it takes at a time."""
    fit: int
    """Trials that fit into memory at a time."""
    speeds: Mapping[int, float]
    """By slots in use: measured steps a second of all trials together. Empty where nothing was measured."""
    note: str
    """For the user; empty where all that were wanted are taken."""


class TrialRunner(Protocol):
    """The part of an engine that is needed to find out how many trials it takes."""

    device: torch.device
    """Where it trains."""

    @property
    def uses_graphs(self) -> bool:
        """Whether steps are captured as CUDA graphs."""

    def join(self, slot: int, assignment: Assignment) -> Any:
        """Brings a trial into a slot."""

    def leave(self, slot: int) -> None:
        """Empties a slot."""

    def advance(self, limit: int | None = None) -> Sequence[Any]:
        """Trains `limit` engine steps at most."""

    def strict_memory(self) -> AbstractContextManager[None]:
        """Within it a step that runs out of memory raises."""

    def without_graphs(self) -> AbstractContextManager[None]:
        """Within it no step is captured or replayed."""


def choose(
    engine: TrialRunner, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False
) -> SlotChoice:
    """Finds out how many of `wanted` trials fit into memory, and with `measure`, how many make the engine faster.

    heaviest: the parameters of the trial that takes most memory. beside: leaves room for an unpacked trial on this GPU.
    Raises Fault where a trial cannot be trained for another reason than memory.
    """
    fit = _fitting(engine, wanted, heaviest, beside)
    if not measure:
        note = f"{fit} of {wanted} trials fit on a GPU: {fit} are packed" if fit < wanted else ""
        return SlotChoice(fit, fit, {}, note)
    speeds: dict[int, float] = {}
    best = 1
    for slots in [*takewhile(lambda n: n < fit, (2**power for power in range(10))), fit]:
        speeds[slots] = slots / _seconds_a_step(engine, slots, {})
        if slots > 1 and speeds[slots] < _PAYS * speeds[best]:
            break
        best = slots
    told = ", ".join(f"{slots}: {speed:.1f}" for slots, speed in speeds.items())
    packed = f"{best} trials are packed" if best > 1 else "packing does not pay: one trial"
    return SlotChoice(best, fit, speeds, f"{packed} at a time (steps a second of all trials, by their number: {told})")


def _fitting(engine: TrialRunner, wanted: int, heaviest: Mapping[str, Any], beside: bool) -> int:
    """How many of the heaviest trials fit into memory, measured with one and two; on a CPU, all that are wanted."""
    if engine.device.type != "cuda" or wanted == 1:
        return wanted
    peaks = []
    for slots in (1, 2):
        torch.cuda.reset_peak_memory_stats()
        try:
            with engine.strict_memory(), engine.without_graphs():  # graphs would hold memory that the next one needs
                _seconds_a_step(engine, slots, heaviest, steps=1)
        except Fault as fault:
            if fault.reason is not Reason.OUT_OF_MEMORY:
                raise
            return 1
        peaks.append(torch.cuda.max_memory_allocated())
    memory = torch.cuda.get_device_properties(engine.device).total_memory
    return room_for(wanted, (peaks[0], peaks[1]), memory, beside)


def room_for(wanted: int, peaks: tuple[float, float], memory: float, beside: bool) -> int:
    """How many of `wanted` trials fit into `memory` bytes, one at least.

    peaks: bytes at the peak with one trial and with two, the base included. beside: leaves room for an unpacked trial.
    """
    each = max(1, peaks[1] - peaks[0])
    room = _USABLE * memory
    if beside:  # it has its own base, and saves a little more in every step
        room -= 1.3 * peaks[0]
    return max(1, min(wanted, int((room - (peaks[0] - each)) / each)))


def _seconds_a_step(
    engine: TrialRunner, slots: int, params: Mapping[str, Any], *, steps: int = _TIMED_TOGETHER
) -> float:
    """Seconds of an engine step with `slots` trials of these parameters, which leave again. steps: to time together."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-"))
    try:
        for slot in range(slots):
            engine.join(slot, Assignment(slot, {**params, "max_steps": 1000}, 0, (1.0,), str(folder)))
        if engine.uses_graphs:
            _timed(engine, _UNTIMED)
            return min(_timed(engine, 1) for _ in range(_TIMED_ONE_BY_ONE))
        _timed(engine, 1)
        return _timed(engine, steps) / steps
    finally:
        for slot in range(slots):
            engine.leave(slot)
        shutil.rmtree(folder, ignore_errors=True)


def _timed(engine: TrialRunner, steps: int) -> float:
    """Seconds of `steps` engine steps, until the GPU is done with them."""
    start = time.perf_counter()
    engine.advance(limit=steps)
    _wait(engine)
    return time.perf_counter() - start


def _wait(engine: TrialRunner) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
