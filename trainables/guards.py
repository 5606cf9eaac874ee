"""What is checked while a trial trains, solo or packed: there is something to learn, and it is being learned.

Each of these has happened to people and left a trainer printing a loss: an adapter loaded for inference only, a model
frozen by hand or prepared twice, labels all masked, a validation set that filtering emptied. They are faults of the
set-up: the same for every trial, so the first one ends the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tuner.contract import Fault, Reason

SAMPLED = 2048
"""Elements looked at in each tensor: a copy of the whole adapter would cost as much memory as a gradient."""
_PATIENCE = 3
"""Optimizer steps with a learning rate above zero until weights must have moved; the first may see no gradient."""
_NEGLIGIBLE = 0.01
"""Share of the trial's peak learning rate below which a step is not expected to change the loss."""
REMEDY = (
    "hand SFTTrainer the base model and peft_config=, without get_peft_model or prepare_model_for_kbit_training; "
    "load an existing adapter with is_trainable=True"
)


Sample = dict[str, torch.Tensor]
"""A part of every trainable tensor, by name."""


class Stillness:
    """Notices an adapter that does not learn, told of every step and evaluation. A NaN is not frozen."""

    def __init__(self, start: Sample) -> None:
        self._start = self._last = start
        self._last_loss: float | None = None
        self._steps_with_rate = 0
        self._moved = False
        self._rate = self._rate_since = self._peak = 0.0

    @property
    def seen(self) -> dict[str, Any]:
        """What is to be remembered where a trial goes on in another process."""
        return {"moved": self._moved, "peak": self._peak, "last_loss": self._last_loss}

    def remember(self, seen: Mapping[str, Any]) -> None:
        """Goes on from what was seen before. A rate near its end moves no weight, and need not: they have moved."""
        self._moved, self._peak, self._last_loss = seen["moved"], seen["peak"], seen["last_loss"]

    def stepping(self, rate: float) -> None:
        """Notes the learning rate of the step about to be taken."""
        self._rate = rate
        self._rate_since = max(self._rate_since, rate)
        self._peak = max(self._peak, rate)

    def stepped(self, now: Callable[[], Sample], last: bool) -> None:
        """After the first steps with a learning rate above zero, weights must have moved."""
        if self._moved or self._rate == 0.0:
            return
        self._steps_with_rate += 1
        self._moved = differ(self._start, now())
        if not self._moved and (self._steps_with_rate >= _PATIENCE or last):
            raise Fault(
                Reason.FROZEN,
                f"no trainable weight moved in {self._steps_with_rate} optimizer steps at learning rate {self._rate:g}",
                REMEDY,
            )

    def evaluated(
        self, loss: float | None, now: Sample, effect: Callable[[], float], grad_norm: Callable[[], float | None]
    ) -> None:
        """Two validation losses equal to the last digit, with learning in between: looks closer."""
        if (
            loss is not None
            and math.isfinite(loss)
            and loss == self._last_loss
            and self._rate_since > _NEGLIGIBLE * self._peak
        ):
            self._look_closer(loss, now, effect, grad_norm)
        self._last_loss, self._last, self._rate_since = loss, now, 0.0

    def _look_closer(
        self, loss: float, now: Sample, effect: Callable[[], float], grad_norm: Callable[[], float | None]
    ) -> None:
        """Frozen: the adapter has no effect on the loss, or its weights stood still although they should have moved.

        A trial with far too high a learning rate can saturate: its loss repeats because its weights are huge. That is
        the driver's to judge, and must not end the search.
        """
        told = f"validation loss {loss!r} twice, equal to the last digit, although the learning rate was not zero"
        if not now:
            raise Fault(Reason.FROZEN, f"{told}: no parameter is trainable any more", REMEDY)
        if effect() == 0.0:
            raise Fault(Reason.FROZEN, f"{told}: the adapter has no effect on the loss", REMEDY)
        if not differ(self._last, now) and self._should_have_moved(now, grad_norm()):
            raise Fault(Reason.FROZEN, f"{told}: no trainable weight moved in between", REMEDY)

    def _should_have_moved(self, now: Sample, grad_norm: float | None) -> bool:
        """There was a gradient, and a step of the learning rate's size is not lost in rounding everywhere."""
        felt = any(
            self._rate_since > torch.finfo(tensor.dtype).eps * tensor.abs().min().item() for tensor in now.values()
        )
        return felt and grad_norm != 0.0


def differ(before: Sample, now: Sample) -> bool:
    """Whether any bit that was looked at differs; a NaN differs from everything."""
    return any(name not in now or not torch.equal(tensor, now[name]) for name, tensor in before.items())


def check_rows(which: str, dataset: Any) -> None:
    """There are rows, and something to learn in them."""
    if dataset is None or len(dataset) == 0:
        raise Fault(Reason.DATA, f"the {which} set is empty", "check data.max_length and the filters before it")
    if "labels" in dataset.column_names and not _any_label(dataset):
        raise Fault(
            Reason.DATA,
            f"the {which} set has no label token: all are masked with -100, and the loss would be 0 for every trial",
            "check completion_only_loss, assistant_only_loss and max_length",
        )


def _any_label(dataset: Any) -> bool:
    """Whether a label is a prediction's target; stops at the first."""
    return any(any(label != -100 for label in row["labels"][1:]) for row in dataset.select_columns(["labels"]))
