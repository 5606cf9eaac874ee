"""Callback: evaluates, saves the adapter, hands the evaluation over and waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from trainables.heartbeat import Heartbeat
from trainables.hf.collectives import full_adapter
from trainables.models.adapter_files import save_adapter
from trainables.progress import AttemptProgress
from tuner.contract import ALONE, EVAL_LOSS, Evaluation, Group


class Reporter(TrainerCallback):
    """Hands an Evaluation to the driver at each evaluation point and goes on, or ends, as the driver says."""

    def __init__(
        self,
        points: tuple[int, ...],
        folder: Path,
        progress: AttemptProgress,
        group: Group = ALONE,
    ) -> None:
        """points: the steps after which to evaluate. folder: the attempt's own. progress: of the trial over all
        attempts; an evaluation that the driver knows is not handed over again. group: the processes that train
        together, of which the first writes."""
        self._group = group
        self._points = frozenset(points)
        self._folder = folder
        self._progress = progress
        self._train_loss: float | None = None
        self._tokens = 0
        # Processes wait for each other at every step, so the first one's heartbeat is that of all
        self._heartbeat = Heartbeat(folder) if group.leads else None
        self.hand_over: Callable[[Evaluation], bool] = lambda evaluation: True
        """Gives an evaluation to the driver, and waits for its answer: whether the trial goes on."""
        self.measure: Callable[[Any], Mapping[str, float | None]] = lambda model: {}
        """Measures the model at the trial's end, beside the loss."""
        self.keeps_last = False
        """Whether the adapter of the last step is kept even if an earlier loss was lower."""
        self.save_state: Callable[[Evaluation], None] = lambda evaluation: None
        """Saves the trial's state with an evaluation, where one is due."""

    def _save(self, model: Any) -> Path:
        """Saves the adapter; gives its folder. Every process of the group has to call it."""
        if self._group.size == 1:
            return save_adapter(model, self._folder)
        adapter = full_adapter(model)
        return save_adapter(model, self._folder, adapter) if self._group.leads else self._folder / "adapter"

    def beat(self) -> None:
        """Touches the heartbeat file."""
        if self._heartbeat is not None:
            self._heartbeat.beat()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Touches the heartbeat file."""
        self.beat()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Touches the heartbeat file."""
        self.beat()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """At an evaluation point, asks for an evaluation and for a log line, which has the mean training loss."""
        self.beat()
        if state.global_step in self._points:
            control.should_log = True
            control.should_evaluate = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keeps the training loss and the tokens that TRL logs."""
        if logs is not None and "loss" in logs:
            self._train_loss = logs["loss"]
            self._tokens = int(logs.get("num_tokens", self._tokens))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, model: Any = None, **_: Any
    ) -> Any:
        """Saves the adapter if it is to be kept, hands the evaluation over, and stops training if it is told
        to."""
        loss = (metrics or {}).get(EVAL_LOSS.name)
        if self._progress.knows(state.global_step):
            return control
        at_end = state.global_step >= state.max_steps
        kept = self._progress.improves(loss) or (at_end and self.keeps_last)
        adapter = str(self._save(model)) if kept else None
        evaluation = Evaluation(
            step=state.global_step,
            max_steps=state.max_steps,
            eval_loss=loss,
            metrics=self.measure(model) if at_end and self._group.leads else None,
            tokens=self._tokens,
            train_loss=self._train_loss,
            seconds=self._progress.seconds,
            memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            adapter=adapter,
        )
        self.save_state(evaluation)
        if not self.hand_over(evaluation):
            control.should_training_stop = True
        return control
