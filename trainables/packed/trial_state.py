"""A packed trial's state: what its slot holds, to be gone on from in a slot of another engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainables import states
from trainables.packed.packed_trial import Slot
from trainables.packed.stack import Pair, Stack
from tuner.contract import Evaluation


def find(slot: Slot) -> tuple[states.Found | None, list[str]]:
    """The newest whole state of the trial's earlier attempts, and a sentence for each that is not."""
    resume = slot.assignment.resume
    return states.find(resume.folders, _identity(slot)) if resume else (None, [])


def buffers(stack: Stack) -> dict[str, torch.Tensor]:
    """What of a stack a state is made of, by the names that it has there; the weights first."""
    return {"weights": stack.weights, "first": stack.first, "second": stack.second}


def state(slot: Slot, parts: Mapping[str, Mapping[str, Pair]]) -> dict[str, Any]:
    """All that the trial's next step depends on, except the base and the rows. parts: of `buffers`, on the host."""
    return {"tokens": slot.tokens, "random": slot.stream.get_state(), **parts}


def keep(slot: Slot, state: Mapping[str, Any], evaluation: Evaluation) -> None:
    """Saves the state of the moment that `evaluation` measured."""
    slot.pace.save(slot.folder, {**states.about(_identity(slot), evaluation), **state})


def take_up(slot: Slot, stack: Stack, found: states.Found) -> None:
    """Goes on from a state. An evaluation past what is known is handed over first: nobody heard of it."""
    state, evaluation = found.values, found.evaluation
    for name, buffer in buffers(stack).items():
        stack.fill(slot.number, state[name], buffer)
    stack.steps[slot.number] = float(evaluation.step)
    slot.stream.set_state(state["random"])
    slot.go_on(evaluation, state["tokens"])


def _identity(slot: Slot) -> Mapping[str, Any]:
    """What a state must have been saved by in order to be gone on from."""
    return states.identity(slot.assignment, slot.max_steps, format="packed 1")
