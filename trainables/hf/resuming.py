"""An SFTTrainer that goes on from a state of ours, with transformers' own way of finding its place in the data.

transformers' checkpoints are pickles beside a base model of their own; a state is one safetensors file over the
resident base. What is taken from transformers is the rest: `train(resume_from_checkpoint=...)` counts epochs and
batches, skips what was trained on, and calls the methods that this class answers.
"""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTTrainer

State = dict[str, Any]


class ResumableTrainer(SFTTrainer):
    """measuring: whether it is at an evaluation, or was when it failed."""

    saved: State | None = None
    measuring = False

    def evaluate(self, *arguments: Any, **more: Any) -> Any:
        self.measuring = True
        metrics = super().evaluate(*arguments, **more)
        self.measuring = False
        return metrics

    def capture(self) -> State:
        """All that its next step depends on, except the base and the rows."""
        return {
            "trainer": {**dataclasses.asdict(self.state), "log_history": []},
            "adapter": {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict(),
            "random": _random_state(),
            "tokens": self._total_train_tokens,
        }

    @contextmanager
    def checkpoint(self) -> Iterator[str | None]:
        """What `train` wants in order to go on: a folder with the counts of the saved state; None without one."""
        if self.saved is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
            Path(folder, TRAINER_STATE_NAME).write_text(json.dumps(self.saved["trainer"]))
            self._total_train_tokens = self.saved["tokens"]
            yield folder

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.saved is not None
        weights = self.saved["adapter"]
        with torch.no_grad():
            for name, tensor in self.model.named_parameters():
                if tensor.requires_grad:
                    tensor.copy_(weights[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.saved is not None
            self.optimizer.load_state_dict(self.saved["optimizer"])
            self.lr_scheduler.load_state_dict(self.saved["scheduler"])
            self.saved = {
                "random": self.saved["random"]
            }  # what is still asked for; the rest has the adapter's size thrice

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.saved is not None
            _set_random_state(self.saved["random"])


def _random_state() -> State:
    kind, keys, *rest = numpy.random.get_state(legacy=True)
    state: State = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(numpy.asarray(keys, dtype="int64")), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: State) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
