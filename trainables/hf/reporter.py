"""Callback: stops at every evaluation point, measures, hands over, waits for its turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from trainables.heartbeat import Sign
from trainables.hf.collectives import whole_adapter
from trainables.models.adapter_files import save_adapter
from trainables.progress import AttemptProgress
from tuner.contract import ALONE, EVAL_LOSS, Evaluation, Group


class Reporter(TrainerCallback):
    """Hands an Evaluation to the driver at each of `points` and goes on, or ends, as the driver says.

    progress: of the trial over all attempts; an evaluation that it knows is not handed over again. keep: saves the
    trial's state, when that is due. group: the processes that train together; the first writes.
    """

    def __init__(
        self,
        points: tuple[int, ...],
        folder: Path,
        progress: AttemptProgress,
        group: Group = ALONE,
    ) -> None:
        self._group = group
        self._points = frozenset(points)
        self._folder = folder
        self._progress = progress
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
        loss = (metrics or {}).get(EVAL_LOSS.name)
        if self._progress.knows(state.global_step):
            return control
        adapter = str(self._save(model)) if self._progress.improves(loss) else None
        evaluation = Evaluation(
            step=state.global_step,
            max_steps=state.max_steps,
            eval_loss=loss,
            tokens=self._tokens,
            train_loss=self._train_loss,
            seconds=self._progress.seconds,
            memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            adapter=adapter,
        )
        self.keep(evaluation)
        if not self.hand_over(evaluation):
            control.should_training_stop = True
        return control
