"""Checks while a trial trains, solo or packed: there is something to learn, and the adapter learns it.

Each of these mistakes has happened to people, whose trainer went on to print a loss: an adapter loaded for inference
only, a model frozen by hand or prepared twice, all labels masked, a validation set that filtering emptied. They are
faults of the set-up, the same for every trial, so the first one ends the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tuner.contract import Fault, Reason

SAMPLED = 2048
"""Elements of each tensor that are compared: a copy of the full adapter would take as much memory as its gradient."""
_PATIENCE = 3
"""Optimizer steps with a learning rate above zero after which weights must have changed; the first may have no
gradient."""
_NEGLIGIBLE = 0.01
"""Share of the trial's peak learning rate below which steps are not expected to change the loss."""
REMEDY = (
    "hand SFTTrainer the base model and peft_config=, without get_peft_model or prepare_model_for_kbit_training; "
    "load an existing adapter with is_trainable=True"
)


Sample = dict[str, torch.Tensor]
"""By name of a trainable tensor: its first elements, [elements] in its dtype."""


class LearningMonitor:
    """Notices an adapter that does not learn, or a part of it, when it is called around every step and after every
    evaluation.

    A weight that is NaN counts as changed: the driver judges such a trial by its loss.
    """

    def __init__(self, start: Sample, parts: Mapping[str, str] | None = None) -> None:
        """start: the adapter before its first step. parts: by name of a tensor, the part of the model that it is on;
        None: each name of `start` is a part's."""
        self._start = self._last = start
        self._parts = parts if parts is not None else {name: name for name in start}
        self._last_loss: float | None = None
        self._steps_with_rate = 0
        self._moved = False
        """Whether weights of every part have changed."""
        self._rate = self._peak = 0.0
        self._rate_since = 0.0
        """The highest learning rate since the last evaluation."""

    @property
    def state(self) -> dict[str, Any]:
        """What another process needs to know in order to continue the trial."""
        return {"moved": self._moved, "peak": self._peak, "last_loss": self._last_loss}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state`. It says whether weights have changed before, for near its end a schedule may change
        none."""
        self._moved, self._peak, self._last_loss = state["moved"], state["peak"], state["last_loss"]

    def before_step(self, rate: float) -> None:
        """Notes the learning rate of the next step."""
        self._rate = rate
        self._rate_since = max(self._rate_since, rate)
        self._peak = max(self._peak, rate)

    def after_step(self, now: Callable[[], Sample], last: bool) -> None:
        """Raises Fault where no weight of a part has changed in the first steps with a learning rate above zero.

        now: samples the adapter. last: whether it was the trial's last step.
        """
        if self._moved or self._rate == 0.0:
            return
        self._steps_with_rate += 1
        still = self._still(now())
        self._moved = not still
        if self._moved or (self._steps_with_rate < _PATIENCE and not last):
            return
        spent = f"in {self._steps_with_rate} optimizer steps at learning rate {self._rate:g}"
        if len(still) == len({*self._parts.values()}):
            raise Fault(Reason.FROZEN, f"no trainable weight moved {spent}", REMEDY)
        raise Fault(Reason.FROZEN, f"no trainable weight of {' and '.join(still)} moved {spent}: the rows do not reach "
                    "these layers", "leave them out of train.target_modules")  # fmt: skip

    def _still(self, now: Sample) -> list[str]:
        """The parts of which no weight has changed."""
        before = {part: {} for part in self._parts.values()}  # type: dict[str, Sample]
        for name, tensor in self._start.items():
            before[self._parts[name]][name] = tensor
        return sorted(part for part, tensors in before.items() if not differ(tensors, now))

    def after_evaluation(
        self, loss: float | None, now: Sample, effect: Callable[[], float], grad_norm: Callable[[], float | None]
    ) -> None:
        """Raises Fault where the last two validation losses are equal to the last digit and the adapter is frozen.

        now: the adapter's sample. effect: measures a validation loss with the adapter minus without it. grad_norm:
        gives the norm of the last step's gradient.
        """
        if (
            loss is not None
            and math.isfinite(loss)
            and loss == self._last_loss
            and self._rate_since > _NEGLIGIBLE * self._peak
        ):
            self._require_not_frozen(loss, now, effect, grad_norm)
        self._last_loss, self._last, self._rate_since = loss, now, 0.0

    def _require_not_frozen(
        self, loss: float, now: Sample, effect: Callable[[], float], grad_norm: Callable[[], float | None]
    ) -> None:
        """Raises Fault where the adapter has no effect on the loss, or its weights should have changed and did not.

        A trial with far too high a learning rate can saturate: its loss repeats because its weights are huge. The
        driver judges that; it must not end the search.
        """
        told = f"validation loss {loss!r} twice, equal to the last digit, although the learning rate was not zero"
        if not now:
            raise Fault(Reason.FROZEN, f"{told}: no parameter is trainable any more", REMEDY)
        if effect() == 0.0:
            raise Fault(Reason.FROZEN, f"{told}: the adapter has no effect on the loss", REMEDY)
        if not differ(self._last, now) and self._should_have_moved(now, grad_norm()):
            raise Fault(Reason.FROZEN, f"{told}: no trainable weight moved in between", REMEDY)

    def _should_have_moved(self, now: Sample, grad_norm: float | None) -> bool:
        """Whether the last gradient was not zero, and a change of the learning rate's size is above rounding for a
        weight."""
        felt = any(
            self._rate_since > torch.finfo(tensor.dtype).eps * tensor.abs().min().item() for tensor in now.values()
        )
        return felt and grad_norm != 0.0


def differ(before: Sample, now: Sample) -> bool:
    """Whether any element of two samples differs; a NaN differs from everything."""
    return any(name not in now or not torch.equal(tensor, now[name]) for name, tensor in before.items())


def check_rows(which: str, dataset: Any) -> None:
    """Raises Fault where a set has no rows or no target. which: "training" or "validation"; dataset: the set."""
    if dataset is None or len(dataset) == 0:
        raise Fault(Reason.DATA, f"the {which} set is empty", "check data.max_length and the filters before it")
    if "labels" in dataset.column_names and not _any_label(dataset):
        raise Fault(
            Reason.DATA,
            f"the {which} set has no label token: all are masked with -100, and the loss would be 0 for every trial",
            "check completion_only_loss, assistant_only_loss and max_length",
        )


def _any_label(dataset: Any) -> bool:
    """Whether any label is a target; the first token of a row never is."""
    return any(any(label != -100 for label in row["labels"][1:]) for row in dataset.select_columns(["labels"]))
