"""Writes the files of an evaluation: the adapter if it is the trial's best so far, and the state if one is due."""

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
    """Makes a job that writes the trial's files with what its slot holds now: a copy is begun before this returns.

    better: whether the evaluation is the trial's best so far. model: the base, whose name is saved with the adapter.
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
