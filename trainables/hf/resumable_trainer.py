"""An SFTTrainer that continues from a state of ours (states.py), and skips the rows that it has trained on.

transformers' checkpoints are pickles with a base of their own; a state is one safetensors file beside the resident
base. transformers does the rest: `train(resume_from_checkpoint=...)` counts epochs and batches, skips what was trained
on, and calls the methods that load, which this class replaces.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from trainables.hf.collectives import all_gather, full_adapter, full_tensor, is_moment, map_leaves, shard_like
from trainables.hf.process_batches import process_loader
from tuner.contract import EVAL_LOSS, Group

State = dict[str, Any]
"""Nested plain data with tensors in it."""


class ResumableTrainer(SFTTrainer):
    """An SFTTrainer that continues from `saved`, as one of the processes of `group`."""

    saved: State | None = None
    """What `capture` gave in an earlier attempt; None: it begins at step 0."""
    measuring = False
    """Whether it evaluates, or was evaluating when it failed."""
    group = Group()
    """The processes that train together, of which this is one."""
    _updates, _idle = 1, 0
    """Optimizer steps in an epoch, and processes without a batch in its last round."""

    def create_accelerator_and_postprocess(self) -> None:
        """Sets up FSDP on CPUs too."""
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and self.args.use_cpu:
            # torch shards on CPUs too, where accelerate's state does not ask for it
            state = self.accelerator.state
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            state.distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> Any:
        """The loader of this process's batches."""
        loader = super().get_train_dataloader()
        if self.group.size == 1:
            return loader
        # The batch sampler inside accelerate's has one process's batches, in the order of their seed
        own = process_loader(loader, loader.batch_sampler.batch_sampler, self.group.rank, self.group.size)
        self._updates = math.ceil(len(own) / self.args.gradient_accumulation_steps)
        self._idle = own.batch_sampler.idle
        return own

    def get_batch_samples(self, *arguments: Any) -> Any:
        """Subtracts, in the last step of an epoch, the single tokens that processes without a batch take."""
        if self.group.size > 1 and (self.state.global_step + 1) % self._updates == 0:
            self._total_train_tokens -= self._idle
        return super().get_batch_samples(*arguments)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader of this process's batches."""
        loader = super().get_eval_dataloader(eval_dataset)
        if self.group.size == 1:
            return loader
        return process_loader(loader, loader.batch_sampler.batch_sampler, self.group.rank, self.group.size)

    def evaluation_loop(self, dataloader: Any, description: str, *arguments: Any, **more: Any) -> Any:
        """With several processes, each evaluates its batches, and the loss is the mean over all rows."""
        if self.group.size == 1:
            return super().evaluation_loop(dataloader, description, *arguments, **more)
        self.model.eval()
        padding = len(dataloader.dataset)
        total = torch.zeros(2, dtype=torch.float64)
        for rows, batch in zip(dataloader.batch_sampler, dataloader, strict=True):
            loss, _, _ = self.prediction_step(self.model, batch, True)
            if rows != [padding]:
                total += torch.tensor([loss.item() * len(rows), len(rows)], dtype=torch.float64)
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        sums, count = self.accelerator.reduce(total.to(self.args.device)).tolist()
        return EvalLoopOutput(None, None, {EVAL_LOSS.name: sums / count}, padding)

    def evaluate(self, *arguments: Any, **more: Any) -> Any:
        """Evaluates; `measuring` is set meanwhile."""
        self.measuring = True
        metrics = super().evaluate(*arguments, **more)
        self.measuring = False
        return metrics

    def capture(self) -> State:
        """All that the next step depends on, except the base and the rows. Every process of a group has to call it."""
        return {
            "trainer": {**dataclasses.asdict(self.state), "log_history": []},
            "adapter": full_adapter(self.model),
            "optimizer": map_leaves(self.optimizer.state_dict(), full_tensor),
            "scheduler": self.lr_scheduler.state_dict(),
            "random": all_gather(_random_state()),
            "tokens": self._total_train_tokens,
        }

    @contextmanager
    def checkpoint(self) -> Iterator[str | None]:
        """Gives the folder that `train(resume_from_checkpoint=...)` needs, with the counts of `saved`; None
        without a state."""
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
                    tensor.copy_(shard_like(tensor, weights[name]))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.saved is not None
            self.optimizer.load_state_dict(self._sharded(self.saved["optimizer"]))
            self.lr_scheduler.load_state_dict(self.saved["scheduler"])
            # Only this is still needed; the rest takes three times the adapter's memory
            self.saved = {"random": self.saved["random"]}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.saved is not None
            _set_random_state(self.saved["random"][self.group.rank])

    def _sharded(self, state: State) -> State:
        """An optimizer's state with its moments, each of its parameter's full shape, sharded as the parameters are."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments = {
            place: {
                name: shard_like(parameters[int(place)], value) if is_moment(parameters[int(place)], value) else value
                for name, value in values.items()
            }
            for place, values in state["state"].items()
        }
        return {**state, "state": moments}


def _random_state() -> State:
    """The states of the global random generators; torch's are [bytes] uint8, numpy's keys [624] int64."""
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
