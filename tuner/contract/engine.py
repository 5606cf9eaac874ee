"""What trains packed trials: an engine, which holds one base and a slot for each trial on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tuner.contract.errors import Fault
from tuner.contract.facts import Assignment, Evaluation, Setup


class SlotChoice(Protocol):
    """How many trials an engine takes at a time."""

    @property
    def slots(self) -> int:
        """How many trials to pack."""
        ...

    @property
    def fit(self) -> int:
        """How many trials the memory has room for; at least `slots`."""
        ...

    @property
    def note(self) -> str:
        """A sentence for the user on both numbers; "" where they are as asked for."""
        ...


@runtime_checkable
class PackedEngine(Protocol):
    """Trains several trials on one base; each is exactly the trial that it would be alone.

    A worker calls every method from one thread (tuner/worker/engine_actor.py), and `advance` again and again while
    `busy`. Slots are numbered from 0. An exception from `join` ends that trial; one from `advance` ends the trials of
    all slots, because the step was theirs; one from `leave` ends the engine.
    """

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do: a trial that may train, or a measurement that it has not returned."""
        ...

    def choose(self, wanted: int, heaviest: Mapping[str, Any], *, measure: bool, beside: bool = False) -> SlotChoice:
        """Decides how many trials to take, `wanted` at most; called once, before the first one joins.

        heaviest: the parameters of the trial that takes most memory. measure: find out as well with how many of the
        trials that fit in memory the search is fastest. beside: leave room for an unpacked trial on the same GPU.
        """
        ...

    def refuses(self, params: Mapping[str, Any]) -> str | None:
        """Tells why a trial with these parameters cannot be packed on this base; None where it can. Only reasons that
        show once the base is loaded: `Program.packs` tells the others. Raises a Fault other than Unpackable where the
        trial cannot be trained at all."""
        ...

    def join(self, slot: int, assignment: Assignment) -> Setup:
        """Puts a trial into a slot. Raises Unpackable where it can be trained, but only alone."""
        ...

    def advance(self, limit: int | None = None) -> Sequence[tuple[int, Evaluation | Fault]]:
        """Trains until a slot has an evaluation or a fault, or for `limit` steps at most. Returns each such slot with
        its evaluation, or with the Fault that keeps its trial from going on. A slot that failed is taken until `leave`.
        """
        ...

    def confirm(self, slot: int) -> None:
        """Lets the trial in this slot go on: the driver did not stop it at its last evaluation. Until this call the
        engine may train it a few steps ahead, and never further."""
        ...

    def leave(self, slot: int) -> None:
        """Empties a slot at whatever step its trial is. Other slots are not changed; an empty one stays empty."""
        ...
