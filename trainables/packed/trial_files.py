"""The files of an evaluation: the adapter where it is the trial's best, and the state where one is due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainables.packed import peft_adapters, trial_state
from trainables.packed.copies import Copies
from trainables.packed.packed_trial import PackedTrial
from trainables.packed.stack import Stack
from trainables.packed.writing import Job
from tuner.contract import Evaluation


def job(trial: PackedTrial, stack: Stack, copies: Copies, model: Any, evaluation: Evaluation, *, better: bool) -> Job:
    """A job that writes the trial's files as its slot is now; the slot is copied before this returns.

    better: whether the evaluation is the trial's best. model: the base, whose name the adapter is saved with.
    """
    due = trial.saves.due(evaluation.step)
    if not (better or due):
        return lambda: evaluation
    buffers = trial_state.buffers(stack)
    wanted = list(buffers) if due else ["weights"]
    copy = copies.of([buffers[name][trial.slot] for name in wanted])
    parts = {
        name: stack.parts(row, trial.slot, trial.initial.weights) for name, row in zip(wanted, copy.values, strict=True)
    }
    state = trial_state.state(trial, parts) if due else None

    def write() -> Evaluation:
        copy.wait()
        measured = evaluation
        if better:
            adapter = peft_adapters.save(trial.initial, parts["weights"], trial.folder, model)
            measured = replace(evaluation, adapter=str(adapter))
        if state is not None:
            trial_state.save(trial, state, measured)
        return measured

    return write
