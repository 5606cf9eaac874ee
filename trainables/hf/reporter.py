"""Callback: stops at every evaluation point, measures, hands over, waits for its turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from trainables.alive import Sign
from trainables.hf.saving import save_adapter
from trainables.hf.together import whole_adapter
from tuner.contract import ALONE, METRIC, Evaluation, Group


class Reporter(TrainerCallback):
    """Hands an Evaluation to the driver at each of `points` and goes on, or ends, as the driver says.

    known: the last step that the driver has heard of, with the best loss up to there, from an earlier attempt; what is
    measured up to there is not handed over again, and its adapter stays that of the best loss. keep: saves the trial's
    state, when that is due. group: the processes that train together; the first writes.
    """

    def __init__(
        self,
        points: tuple[int, ...],
        folder: Path,
        began: float,
        known: tuple[int, float | None] = (0, None),
        group: Group = ALONE,
    ) -> None:
        self._group = group
        self._points = frozenset(points)
        self._folder = folder
        self._began = began
        self._known, best = known
        self._best = math.inf if best is None else best
        self._train_loss: float | None = None
        self._tokens = 0
        # The others wait for the first at every step, and it for them: its sign is that of all
        self._sign = Sign(folder) if group.leads else None
        self.hand_over: Callable[[Evaluation], bool] = lambda evaluation: True
        self.keep: Callable[[Evaluation], None] = lambda evaluation: None

    def _save(self, model: Any) -> Path:
        if self._group.size == 1:
            return save_adapter(model, self._folder)
        adapter = whole_adapter(model)
        return save_adapter(model, self._folder, adapter) if self._group.leads else self._folder / "adapter"

    def heard_of(self, evaluation: Evaluation) -> None:
        """An evaluation of an earlier attempt that the driver may not have heard of, but this trial went on from."""
        if evaluation.eval_loss is not None and evaluation.eval_loss < self._best:
            self._best = evaluation.eval_loss
        self._began -= evaluation.seconds

    def _leave_sign(self) -> None:
        if self._sign is not None:
            self._sign.leave()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._leave_sign()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._leave_sign()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Asks for a log line (it carries the mean training loss since the last) and an evaluation."""
        self._leave_sign()
        if state.global_step in self._points:
            control.should_log = True
            control.should_evaluate = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keeps what TRL measured over the steps since the evaluation before."""
        if logs is not None and "loss" in logs:
            self._train_loss = logs["loss"]
            self._tokens = int(logs.get("num_tokens", self._tokens))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, model: Any = None, **_: Any
    ) -> Any:
        """Saves the adapter if this loss is its best, then waits for the driver's word."""
        loss = (metrics or {}).get(METRIC)
        if state.global_step <= self._known:
            return control
        adapter = None
        if loss is not None and loss < self._best:  # a NaN is never below
            self._best = loss
            adapter = str(self._save(model))
        evaluation = Evaluation(
            step=state.global_step,
            max_steps=state.max_steps,
            eval_loss=loss,
            tokens=self._tokens,
            train_loss=self._train_loss,
            seconds=time.monotonic() - self._began,
            memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            adapter=adapter,
        )
        self.keep(evaluation)
        if not self.hand_over(evaluation):
            control.should_training_stop = True
        return control
