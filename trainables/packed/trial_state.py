"""Saves a packed trial's state, which is what its slot holds, and continues from it in a slot of another engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainables import states
from trainables.packed.packed_trial import PackedTrial
from trainables.packed.stack import Pair, Stack
from tuner.contract import Evaluation


def find(trial: PackedTrial) -> tuple[states.SavedState | None, list[str]]:
    """The newest usable state of the trial's earlier attempts, and a sentence for each that cannot be used."""
    resume = trial.assignment.resume
    return states.find(resume.folders, _identity(trial)) if resume else (None, [])


def buffers(stack: Stack) -> dict[str, torch.Tensor]:
    """The buffers of a stack that a state has a row of, [slots, width] each, by their names in it; weights first."""
    return {"weights": stack.weights, "first": stack.first, "second": stack.second}


def state(trial: PackedTrial, parts: Mapping[str, Mapping[str, Pair]]) -> dict[str, Any]:
    """All that the trial's next step depends on, except the base and the rows.

    parts: by name in `buffers`, then by module name: A [rank, in] and B [out, rank] on the host.
    """
    return {"tokens": trial.tokens, "random": trial.stream.get_state(), **parts}


def save(trial: PackedTrial, state: Mapping[str, Any], evaluation: Evaluation) -> None:
    """Saves a `state` with the evaluation that was measured of it."""
    trial.saves.save(trial.folder, {**states.header(_identity(trial), evaluation), **state})


def resume(trial: PackedTrial, stack: Stack, found: states.SavedState) -> None:
    """Continues from the state `found`: writes it into the trial's slot, and takes the trial to its step."""
    state, evaluation = found.values, found.evaluation
    for name, buffer in buffers(stack).items():
        stack.fill(trial.slot, state[name], buffer)
    stack.steps[trial.slot] = float(evaluation.step)
    trial.stream.set_state(state["random"])
    trial.resume(evaluation, state["tokens"])


def _identity(trial: PackedTrial) -> Mapping[str, Any]:
    """What a state must have in its header so that this trial can continue from it."""
    return states.identity(trial.assignment, trial.max_steps, format="packed 1")
