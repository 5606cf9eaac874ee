"""What a packed program trains with: an engine, which holds one base and a slot for each trial on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tuner.contract.errors import Fault
from tuner.contract.facts import Assignment, Evaluation, Setup


class SlotChoice(Protocol):
    """How many trials an engine takes at a time."""

    @property
    def slots(self) -> int:
        """Trials to pack."""
        ...

    @property
    def fit(self) -> int:
        """Trials that there is memory for; at least `slots`."""
        ...

    @property
    def note(self) -> str:
        """Both in words for the user; "" where all went as asked for."""
        ...


@runtime_checkable
class PackedEngine(Protocol):
    """Several trials on one base, each exactly the trial that it would be alone.

    A worker calls every method from one thread (tuner/worker/engine_actor.py), and `advance` again and again while
    `busy`. Slots are numbered from 0. What a method raises ends: from `join` that trial; from `advance` the trials of
    all slots, because the step was theirs; from `leave` the engine.
    """

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do: a trial that may train, or a measurement that was not handed over."""
        ...

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> SlotChoice:
        """How many trials to take, of `wanted` at most; called once, before the first one joins.

        heaviest: the parameters of the trial that takes most memory. measure: find out as well how many of those that
        fit are worth it. beside: leave room for an unpacked trial on the same GPU.
        """
        ...

    def refuses(self, params: Mapping[str, Any]) -> str | None:
        """Why a trial with these parameters cannot be packed on this base, as far as only the base can tell; None where
        it can. Raises a Fault that is no Unpackable where it cannot be trained at all."""
        ...

    def join(self, slot: int, assignment: Assignment) -> Setup:
        """Brings a trial into a slot. Raises Unpackable where it can be trained, but only alone."""
        ...

    def advance(self, limit: int | None = None) -> Sequence[tuple[int, Evaluation | Fault]]:
        """Trains until there is something to hand over, or for `limit` steps at most: for each slot that has one its
        measurement, or the reason why its trial cannot go on. A slot that failed is held until `leave`."""
        ...

    def confirm(self, slot: int) -> None:
        """The driver lets the trial in this slot go on after its last evaluation. Until then it may train a few steps
        ahead, and never further."""
        ...

    def leave(self, slot: int) -> None:
        """Empties a slot, wherever its trial is; its neighbours do not feel it. An empty slot stays empty."""
        ...
