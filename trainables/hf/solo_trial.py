"""One trial on a resident base, from set-up to taking everything away."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, set_seed

from trainables import states
from trainables.hf.arguments import sft_config
from trainables.hf.collectives import agreed
from trainables.hf.frozen_guard import FrozenGuard
from trainables.hf.reporter import Reporter
from trainables.hf.resumable_trainer import ResumableTrainer
from trainables.hf.stepper import Turns
from trainables.models import base
from trainables.models.counting import Count, count
from trainables.models.lora import lora_config
from trainables.models.resident import Resident
from trainables.progress import AttemptProgress
from trainables.settings import Settings, steps
from trainables.settings.train import CHANGES_BASE
from tuner.contract import ALONE, Assignment, Evaluation, Group


class Trial:
    """An SFTTrainer over the resident base, and its way in and out. resumed_step: where it goes on; 0: from the start.
    notes: what could not be read of the states it might have gone on from."""

    def __init__(
        self,
        settings: Settings,
        assignment: Assignment,
        resident: Resident,
        tokenizer: Any,
        train: Any,
        validation: Any,
        began: float,
        group: Group = ALONE,
    ) -> None:
        self.group = group
        self.max_steps = steps.max_steps(settings.train, len(train))
        gpu = torch.cuda.is_available()
        # What the base alone holds: the same before every trial, or something was left behind
        self.memory_before = torch.cuda.memory_allocated() if gpu else None
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        args = sft_config(
            settings, self.max_steps, assignment.seed, assignment.folder,
            gpu=gpu, bf16=base.computes_in_bf16(resident.model), group=group,
        )  # fmt: skip
        self._device = args.device  # asked for early: this is when accelerate learns of the other processes
        self.config = lora_config(settings, resident.model)
        points = assignment.evaluation_steps(self.max_steps)
        self.number = assignment.number
        self._assignment = assignment
        resume = assignment.resume
        found, self.notes = self._find(resume.folders) if resume else (None, [])
        self.progress = AttemptProgress(began)
        if resume is not None and found is not None:
            self.progress.resume(resume, found.evaluation)
        self.reporter = Reporter(points, Path(assignment.folder), self.progress, group)
        self.pace = states.Pace(Path(assignment.folder))
        self.trainer = ResumableTrainer(
            model=resident.model,
            args=args,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            peft_config=self.config,
        )
        self.trainer.group = group
        self.trainer.remove_callback(PrinterCallback)
        self.guard = FrozenGuard(self.trainer)
        self.guard.check_setup()
        self.trainer.add_callback(self.guard)
        self.trainer.add_callback(self.reporter)
        self.count: Count = count(self.trainer.model)
        if group.size > 1 and settings.train.init_lora_weights not in CHANGES_BASE:
            # Each has loaded the same base; to send it around at the start of every trial would take time for nothing
            model = self.trainer.model
            frozen = [name for name, tensor in model.named_parameters() if not tensor.requires_grad]
            frozen += [name for name, _ in model.named_buffers()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
        self.turns: Turns[Evaluation] = Turns(self._train)
        self.reporter.keep = self._keep
        self.resumed_step = 0
        if found is not None:
            self.guard.seen_before = found.values["guard"]
            self.trainer.saved = found.values
            self.resumed_step = found.evaluation.step

    def _train(self, hand_over: Any) -> None:
        self.reporter.hand_over = hand_over
        unheard = self.progress.take_unheard()
        if unheard is not None and (not hand_over(unheard) or unheard.done):
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(self._device)  # a thread begins on the first that it sees
        if self.group.size > 1:
            self.guard.check_setup()  # DDP has an error of its own for what is frozen, and it comes first
        # The constructor seeded too, but between the two others may have drawn from the same global generators. Rows
        # are drawn from a generator of their own; what is left is dropout, which need not be alike everywhere
        set_seed(self.trainer.args.seed + self.group.rank)
        with self.trainer.checkpoint() as place:
            self.trainer.train(resume_from_checkpoint=place)

    def _identity(self) -> dict[str, Any]:
        """What a state must have been saved by in order to be gone on from."""
        return states.identity(self._assignment, self.max_steps, format=2, processes=self.group.size)

    def _find(self, folders: tuple[str, ...]) -> tuple[states.Found | None, list[str]]:
        """The state to go on from: the one that the first process finds, for all of them."""
        if self.group.size == 1:
            return states.find(folders, self._identity())
        found, notes = states.find(folders, self._identity()) if self.group.leads else (None, [])
        path, notes = agreed((found and found.path, notes))
        if path is not None and found is None:
            found = states.Found(states.load(path), path)
        return found, notes

    def _keep(self, evaluation: Evaluation) -> None:
        """Saves the state of this moment, if it is time for one. All processes have a part in it, the first writes."""
        if agreed(self.pace.due):
            state = {
                **states.about(self._identity(), evaluation),
                "guard": self.guard.seen,
                **self.trainer.capture(),
            }
            if self.group.leads:
                self.pace.save(Path(self._assignment.folder), state)

    def adapted_modules(self) -> int:
        """How many modules of the base the adapter sits on."""
        return len(
            {name.rpartition(".lora_A")[0] for name, _ in self.trainer.model.named_modules() if ".lora_A" in name}
        )

    def close(self) -> None:
        """Ends the loop, wherever it is."""
        self.turns.close()

    def take_away(self) -> None:
        """Drops adapter, optimizer and accelerator; the base itself is the Resident's to restore."""
        trainer = self.trainer
        trainer.accelerator.free_memory()
        trainer.optimizer = trainer.lr_scheduler = trainer.saved = None
        trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
        trainer.model.base_model.unload()


def collect() -> None:
    """Drops what only cycles keep alive, and the singletons of accelerate that remember a trial's precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    gc.collect()
    if torch.cuda.is_available():
        # 65 MiB on an H200, held from the first matrix product on
        getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()
        torch.cuda.empty_cache()
