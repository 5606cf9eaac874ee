"""Callback: raises a Fault where an SFTTrainer would run without learning.

It works on any SFTTrainer: `trainer.add_callback(FrozenGuard(trainer))`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from trainables.guards import REMEDY, SAMPLED, LearningMonitor, Sample, check_rows
from trainables.hf.collectives import full_tensor
from trainables.models import parts
from tuner.contract import EVAL_LOSS, Fault, Reason


class FrozenGuard(TrainerCallback):
    """Raises a Fault where a trainer would run without learning."""

    def __init__(self, trainer: Any, *, mixed: bool = False) -> None:
        """mixed: whether some rows have images and some have none: the first steps may not reach every part."""
        self._trainer, self._mixed = trainer, mixed
        self._monitor = LearningMonitor({})
        self._grad_norm: float | None = None
        self.saved_state: Mapping[str, Any] | None = None
        """The monitor's state in an earlier attempt that the trial continues; None: it begins at step 0."""

    @property
    def state(self) -> dict[str, Any]:
        """The monitor's state, to be saved with the trial's."""
        return self._monitor.state

    def check_setup(self) -> None:
        """Raises Fault for what is wrong before an optimizer exists: rows, labels, trainable parameters."""
        trainer = self._trainer
        check_rows("training", trainer.train_dataset)
        check_rows("validation", trainer.eval_dataset)
        if not _trainable(trainer.model):
            raise Fault(Reason.FROZEN, f"nothing to train: of {_total(trainer.model)} parameters none is trainable",
                        REMEDY)  # fmt: skip

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raises Fault where a trainable parameter is not in the optimizer; samples the adapter."""
        self.check_setup()
        trainable = _trainable(self._trainer.model)
        held = {id(p) for group in self._trainer.optimizer.param_groups for p in group["params"]}
        missing = [name for name, parameter in trainable.items() if id(parameter) not in held]
        if missing:
            raise Fault(
                Reason.FROZEN,
                f"{len(missing)} of {len(trainable)} trainable tensors are not in the optimizer, e.g. {missing[0]}",
                "let SFTTrainer create the optimizer",
            )
        of_tensors = _parts(self._trainer.model, trainable, mixed=self._mixed)
        self._monitor = LearningMonitor(sample(trainable), of_tensors)
        if self.saved_state is not None:
            self._monitor.restore(self.saved_state)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Notes the learning rate of the next step."""
        self._monitor.before_step(max(group["lr"] for group in self._trainer.optimizer.param_groups))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raises Fault where the first steps have changed no weight."""
        self._monitor.after_step(self._now, last=state.global_step >= state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keeps the last gradient norm."""
        self._grad_norm = (logs or {}).get("grad_norm", self._grad_norm)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **_: Any) -> None:
        """Raises Fault where the loss repeats and the adapter is frozen."""
        loss = (metrics or {}).get(EVAL_LOSS.name)
        self._monitor.after_evaluation(loss, self._now(), self._effect, lambda: self._grad_norm)

    def _now(self) -> Sample:
        return sample(_trainable(self._trainer.model))

    def _effect(self) -> float:
        """Loss of one validation batch with the adapter minus without it; NaN where the adapter cannot be disabled."""
        trainer = self._trainer
        if not hasattr(trainer.model, "disable_adapter"):
            return math.nan
        size = min(len(trainer.eval_dataset), trainer.args.per_device_eval_batch_size)
        # Those with images have no tokens yet, but for the collator
        rows = [_collatable(trainer.eval_dataset[i]) for i in range(size)]
        was_training = trainer.model.training
        trainer.model.eval()
        try:
            batch = trainer.data_collator(rows)
            with_adapter = trainer.prediction_step(trainer.model, dict(batch), True)[0].item()
            with trainer.model.disable_adapter():
                without = trainer.prediction_step(trainer.model, dict(batch), True)[0].item()
        finally:
            trainer.model.train(was_training)
            trainer._metrics["eval"].clear()
        return with_adapter - without


def _collatable(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the collator takes of a row."""
    return {key: row[key] for key in ("input_ids", "labels")} if "input_ids" in row else dict(row)


def _parts(model: Any, names: Iterable[str], *, mixed: bool) -> dict[str, str]:
    """By name of a trainable tensor: the part of the model that its adapter is on; one for all without an adapter.

    mixed: parts that rows without images do not reach count as one of the others.
    """
    if not hasattr(model, "peft_config"):
        return dict.fromkeys(names, "the model")
    found = parts.of(model)
    of_names = {name: found[name.rpartition(".")[0]] for name in names}
    language = [part for part in of_names.values() if part.tower is parts.Tower.LANGUAGE]
    if mixed and language:
        return {name: str(part if part.tower is parts.Tower.LANGUAGE else language[0])
                for name, part in of_names.items()}  # fmt: skip
    return {name: str(part) for name, part in of_names.items()}


def _trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _total(model: Any) -> int:
    return sum(1 for _ in model.parameters())


def sample(parameters: Mapping[str, torch.Tensor]) -> Sample:
    """Copies of the first elements of every tensor [...], as [elements] in its dtype, by name.

    Every process of a group has to call it.
    """
    return {name: full_tensor(tensor.detach()).reshape(-1)[:SAMPLED].clone() for name, tensor in parameters.items()}
