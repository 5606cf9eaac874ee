"""One trial that an SFTTrainer trains over a resident base, from set-up to removal."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, set_seed

from trainables import states
from trainables.answers import generating
from trainables.answers.measuring import Measurer
from trainables.hf.arguments import sft_config
from trainables.hf.collectives import broadcast
from trainables.hf.frozen_guard import FrozenGuard
from trainables.hf.reporter import Reporter
from trainables.hf.resumable_trainer import ResumableTrainer
from trainables.hf.stepper import CallbackStepper
from trainables.models import base, parts
from trainables.models.adapter_files import load_adapter
from trainables.models.counting import Count, count
from trainables.models.lora import lora_config
from trainables.models.resident import Resident
from trainables.progress import AttemptProgress
from trainables.runtime import Inputs
from trainables.settings import Settings, steps
from trainables.settings.train import CHANGES_BASE
from tuner.contract import ALONE, Assignment, Evaluation, Group


class SoloTrial:
    """A trial that an SFTTrainer trains over the resident base."""

    def __init__(
        self,
        settings: Settings,
        assignment: Assignment,
        resident: Resident,
        inputs: Inputs,
        began: float,
        group: Group = ALONE,
        measurer: Measurer | None = None,
    ) -> None:
        """began: when its set-up began, by `time.monotonic`. group: the processes that train together. measurer: what
        it is measured by at its end, beside the loss; None: nothing.

        Raises Fault where it cannot be trained.
        """
        self.group = group
        self.max_steps = steps.max_steps(settings.train, len(inputs.train))
        gpu = torch.cuda.is_available()
        self.memory_before = torch.cuda.memory_allocated() if gpu else None
        """Bytes of GPU memory in use: the base's alone, unless an earlier trial was not removed completely."""
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        args = sft_config(
            settings, self.max_steps, assignment.seed, assignment.folder,
            gpu=gpu, bf16=base.computes_in_bf16(resident.model), group=group,
        )  # fmt: skip
        args.remove_unused_columns = inputs.collator is None  # images are in no column of the file of rows
        self._device = args.device  # read early: accelerate then initialises the process group
        self.config = lora_config(settings, resident.model)
        points = assignment.evaluation_steps(self.max_steps)
        self.number = assignment.number
        self._assignment = assignment
        resume = assignment.resume
        found, self.notes = self._find(resume.folders) if resume else (None, [])
        """Sentences about states that cannot be used."""
        self.progress = AttemptProgress(began)
        if resume is not None and found is not None:
            self.progress.resume(resume, found.evaluation)
        self.reporter = Reporter(points, Path(assignment.folder), self.progress, group)
        self.saves = states.SaveSchedule(Path(assignment.folder), assignment.state_steps(self.max_steps))
        self.trainer = ResumableTrainer(
            model=resident.model,
            args=args,
            train_dataset=inputs.train,
            eval_dataset=inputs.validation,
            processing_class=inputs.processor or inputs.tokenizer,
            data_collator=inputs.collator,
            peft_config=self.config,
        )
        if settings.train.init_adapter is not None:
            load_adapter(self.trainer.model, Path(settings.train.init_adapter))
        self.trainer.group = group
        self.trainer.remove_callback(PrinterCallback)
        self.guard = FrozenGuard(self.trainer, mixed=inputs.mixed)
        self.guard.check_setup()
        self.trainer.add_callback(self.guard)
        self.trainer.add_callback(self.reporter)
        self.count: Count = count(self.trainer.model)
        self.parts: str = parts.told(parts.trained(self.trainer.model))
        """Which parts of the base have an adapter, in words."""
        self.base_class = type(resident.model).__name__
        if group.size > 1 and settings.train.init_lora_weights not in CHANGES_BASE:
            # Every process has loaded the same base: DDP need not broadcast it at the start of every trial
            model = self.trainer.model
            frozen = [name for name, tensor in model.named_parameters() if not tensor.requires_grad]
            frozen += [name for name, _ in model.named_buffers()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
        self.stepper: CallbackStepper[Evaluation] = CallbackStepper(self._train)
        self.reporter.save_state = self._save_state
        self.reporter.keeps_last = settings.metrics.objective is not None
        if measurer is not None and not group.shares_base:  # no process has the whole base to generate with
            self.reporter.measure = partial(self._measure, measurer)
        self.resumed_step = 0
        """The step that it continues from; 0: it begins anew."""
        if found is not None:
            self.guard.saved_state = found.values["guard"]
            self.trainer.saved = found.values
            self.resumed_step = found.evaluation.step

    def _train(self, hand_over: Any) -> None:
        """The body of the stepper: hands over what the driver has not heard of, then trains."""
        self.reporter.hand_over = hand_over
        unheard = self.progress.take_unheard()
        if unheard is not None and (not hand_over(unheard) or unheard.done):
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(self._device)  # a new thread uses the first GPU that it sees
        if self.group.size > 1:
            self.guard.check_setup()  # or DDP's own error for a frozen model would come first
        # The constructor seeded too, but others may have drawn from the global generators since. Rows have a generator
        # of their own; this one is for dropout, which may differ between processes
        set_seed(self.trainer.args.seed + self.group.rank)
        with self.trainer.checkpoint() as place:
            self.trainer.train(resume_from_checkpoint=place)

    def _measure(self, measurer: Measurer, model: Any) -> Mapping[str, float | None]:
        """The metrics of answers of the trial as it is now."""
        tokenizer = self.trainer.processing_class
        generate = partial(
            generating.generate, model, stops=measurer.stops(model), padding=tokenizer.pad_token_id,
            most=measurer.most_tokens, tell=lambda done: self.reporter.beat(),
        )  # fmt: skip
        model.eval()
        with self.trainer.compute_loss_context_manager():  # in the precision of the trial's own evaluations
            return measurer.measure(lambda prompts: [generate(prompts).ids], 1, self.progress.seconds)[0]

    def _identity(self) -> dict[str, Any]:
        """What a state must have in its header so that this trial can continue from it."""
        return states.identity(self._assignment, self.max_steps, format=2, processes=self.group.size)

    def _find(self, folders: tuple[str, ...]) -> tuple[states.SavedState | None, list[str]]:
        """The state to continue from, and sentences about unusable ones. All processes take what the first one
        finds."""
        if self.group.size == 1:
            return states.find(folders, self._identity())
        found, notes = states.find(folders, self._identity()) if self.group.leads else (None, [])
        path, notes = broadcast((found and found.path, notes))
        if path is not None and found is None:
            found = states.SavedState(states.load(path), path)
        return found, notes

    def _save_state(self, evaluation: Evaluation) -> None:
        """Saves the state of this moment if one is due. Every process of the group has to call it; the first writes."""
        if broadcast(self.saves.due(evaluation.step)):
            state = {
                **states.header(self._identity(), evaluation),
                "guard": self.guard.state,
                **self.trainer.capture(),
            }
            if self.group.leads:
                self.saves.save(Path(self._assignment.folder), state)

    def adapted_modules(self) -> int:
        """Number of the base's modules with an adapter."""
        return len(
            {name.rpartition(".lora_A")[0] for name, _ in self.trainer.model.named_modules() if ".lora_A" in name}
        )

    def close(self) -> None:
        """Ends the training loop where it waits, and waits until it has ended."""
        self.stepper.close()

    def remove(self) -> None:
        """Drops adapter, optimizer and accelerator; the Resident restores the base itself."""
        trainer = self.trainer
        trainer.accelerator.free_memory()
        trainer.optimizer = trainer.lr_scheduler = trainer.saved = None
        trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
        trainer.model.base_model.unload()


def release_memory() -> None:
    """Collects garbage, and resets the singletons of accelerate, which keep a trial's precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    gc.collect()
    if torch.cuda.is_available():
        # cuBLAS holds 65 MiB on an H200 from the first matrix product on
        getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()
        torch.cuda.empty_cache()
